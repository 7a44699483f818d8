//! Which columns of a parquet file are the problem, the answer and the images.

use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};

use super::error::{Error, Result};
use super::keys::{DataKeys, ID, SOLUTION, missing};
use super::summary::Column;

/// Most columns that a summary lists.
const MAX_LISTED: usize = 100;

/// The columns that we read.
pub(super) struct Columns {
    pub(super) problem: Leaf,
    pub(super) answer: Leaf,
    pub(super) solution: Option<Leaf>,
    pub(super) id: Option<Leaf>,
    /// Encoded images.
    pub(super) images: Option<Leaf>,
    /// Files of images.
    pub(super) image_paths: Option<Leaf>,
}

/// A column of values.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    pub(super) index: usize,
    pub(super) physical: Physical,
    /// Definition level from which on there is an entry, perhaps a null one.
    pub(super) entry_level: i16,
}

impl Columns {
    pub(super) fn find(path: &Path, metadata: &ParquetMetaData, keys: &DataKeys) -> Result<Self> {
        let schema = metadata.file_metadata().schema_descr();
        let error = |reason: String| Error::Schema {
            path: path.to_owned(),
            reason,
        };
        let text = [Physical::BYTE_ARRAY];
        let scalar = [
            Physical::BYTE_ARRAY,
            Physical::INT32,
            Physical::INT64,
            Physical::FLOAT,
            Physical::DOUBLE,
        ];
        let required = |names: &[&str], physical: &[Physical], flag: &str| {
            let there = fields(schema).iter().map(|field| field.name());
            flat(schema, names, physical)
                .map_err(error)?
                .ok_or_else(|| error(missing(names, flag, there)))
        };
        let (images, image_paths) = find_images(schema, keys).map_err(error)?;
        Ok(Self {
            problem: required(&keys.prompt_names(), &text, "--prompt-key")?,
            answer: required(&keys.answer_names(), &scalar, "--answer-key")?,
            // Columns that nobody asked for may be of any type.
            solution: flat(schema, SOLUTION, &text).unwrap_or_default(),
            id: flat(schema, ID, &scalar[..3]).unwrap_or_default(),
            images,
            image_paths,
        })
    }

    /// All columns of the file, and what those that we read are taken for.
    pub(super) fn summary(&self, metadata: &ParquetMetaData) -> Vec<Column> {
        let schema = metadata.file_metadata().schema_descr();
        let used = [
            (Some(self.problem), "prompt"),
            (Some(self.answer), "answer"),
            (self.solution, "solution"),
            (self.id, "id"),
            (self.images.or(self.image_paths), "images"),
        ];
        let role = |name: &str| {
            let used = used.iter().find(|(leaf, _)| {
                leaf.is_some_and(|leaf| top(&schema.column(leaf.index)) == Some(name))
            });
            used.map(|&(_, role)| role)
        };
        let fields = fields(schema).iter().take(MAX_LISTED);
        fields
            .map(|field| Column {
                name: field.name().to_owned(),
                kind: kind(field),
                used_as: role(field.name()),
            })
            .collect()
    }
}

fn fields(schema: &SchemaDescriptor) -> &[std::sync::Arc<Type>] {
    schema.root_schema().get_fields()
}

fn top(column: &ColumnDescriptor) -> Option<&str> {
    column.path().parts().first().map(String::as_str)
}

/// The first of the names that is one value per row; a name with dots is a field within a group.
fn flat(
    schema: &SchemaDescriptor,
    names: &[&str],
    physical: &[Physical],
) -> Result<Option<Leaf>, String> {
    let mut refused = None;
    for name in names {
        let mut columns = schema.columns().iter().enumerate();
        let found = columns.find(|(_, column)| {
            top(column) == Some(*name) || column.path().parts().join(".") == **name
        });
        let Some((index, column)) = found else {
            continue;
        };
        let is_whole = column.path().parts().join(".") == **name;
        let is_decimal = column.converted_type() == ConvertedType::DECIMAL;
        if is_whole
            && column.max_rep_level() == 0
            && !is_decimal
            && physical.contains(&column.physical_type())
        {
            return Ok(Some(Leaf {
                index,
                physical: column.physical_type(),
                entry_level: 0,
            }));
        }
        refused.get_or_insert_with(|| format!("column {name:?} is not one string per row"));
    }
    refused.map_or(Ok(None), Err)
}

/// `images.list.element.bytes` and `.path`, whatever the writer calls the levels between; a list of strings is paths.
fn find_images(
    schema: &SchemaDescriptor,
    keys: &DataKeys,
) -> Result<(Option<Leaf>, Option<Leaf>), String> {
    let names = keys.image_names();
    let under = |name: &str| -> Vec<(usize, &ColumnDescriptor)> {
        let columns = schema.columns().iter().enumerate();
        let ours = columns.filter(|(_, column)| top(column) == Some(name));
        ours.map(|(index, column)| (index, column.as_ref()))
            .collect()
    };
    let found = names
        .iter()
        .map(|name| (*name, under(name)))
        .find(|(_, columns)| !columns.is_empty());
    let Some((name, columns)) = found else {
        return if keys.images.is_some() {
            let there = fields(schema).iter().map(|field| field.name());
            Err(missing(&names, "--image-key", there))
        } else {
            Ok((None, None))
        };
    };
    let named = |last: &str| {
        let mut columns = columns.iter();
        let found = columns.find(|(_, c)| c.path().parts().last().is_some_and(|part| part == last));
        found.copied()
    };
    let (bytes, paths) = match columns.as_slice() {
        [only] if is_text(only.1) => (None, Some(*only)),
        [only] => (Some(*only), None),
        _ => (named("bytes"), named("path")),
    };
    if bytes.is_none() && paths.is_none() {
        return Err(format!(
            "column {name:?} has no field \"bytes\" nor \"path\""
        ));
    }
    let leaf = |found: Option<(usize, &ColumnDescriptor)>| {
        found
            .map(|(index, column)| image_leaf(schema, index, column, name))
            .transpose()
    };
    Ok((leaf(bytes)?, leaf(paths)?))
}

fn image_leaf(
    schema: &SchemaDescriptor,
    index: usize,
    column: &ColumnDescriptor,
    name: &str,
) -> Result<Leaf, String> {
    if column.physical_type() != Physical::BYTE_ARRAY || column.max_rep_level() > 1 {
        return Err(format!("column {name:?} is not a list of images"));
    }
    Ok(leaf_of(schema, index, column))
}

/// A column with at most one list on the way to its values.
pub(super) fn leaf_of(schema: &SchemaDescriptor, index: usize, column: &ColumnDescriptor) -> Leaf {
    // Without a list, a null is no image; with one, an entry exists from the list's own level on.
    let mut entry_level = column.max_def_level();
    let (mut level, mut node) = (0, schema.root_schema());
    for name in column.path().parts() {
        let Some(child) = node.get_fields().iter().find(|child| child.name() == name) else {
            break;
        };
        match child.get_basic_info().repetition() {
            Repetition::REQUIRED => {}
            Repetition::OPTIONAL => level += 1,
            Repetition::REPEATED => {
                level += 1;
                entry_level = level;
            }
        }
        if child.is_primitive() {
            break;
        }
        node = child;
    }
    Leaf {
        index,
        physical: column.physical_type(),
        entry_level,
    }
}

pub(super) fn is_text(column: &ColumnDescriptor) -> bool {
    column.converted_type() == ConvertedType::UTF8
        || matches!(column.logical_type_ref(), Some(LogicalType::String))
}

/// A column's type in a few words.
fn kind(field: &Type) -> String {
    let info = field.get_basic_info();
    if field.is_primitive() {
        let name = if info.converted_type() == ConvertedType::UTF8 {
            "string".to_owned()
        } else {
            match field.get_physical_type() {
                Physical::BYTE_ARRAY => "binary".to_owned(),
                other => other.to_string().to_lowercase(),
            }
        };
        return match info.repetition() {
            Repetition::REPEATED => format!("list of {name}"),
            _ => name,
        };
    }
    match (info.converted_type(), field.get_fields()) {
        (ConvertedType::LIST, [entries]) => match entries.is_primitive() {
            true => kind(entries),
            false => match entries.get_fields() {
                [entry] => format!("list of {}", kind(entry)),
                _ => "list of struct".to_owned(),
            },
        },
        (ConvertedType::MAP, _) => "map".to_owned(),
        (_, parts) => {
            let names = parts.iter().take(8).map(|part| part.name());
            format!("struct({})", names.collect::<Vec<_>>().join(", "))
        }
    }
}
