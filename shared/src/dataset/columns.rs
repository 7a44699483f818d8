//! Which columns of a parquet file are the problem, the answer and the images.

use std::path::Path;

use parquet::basic::{Repetition, Type as Physical};
use parquet::file::metadata::ParquetMetaData;

use super::error::{Error, Result};

/// The columns that we read.
pub(super) struct Columns {
    pub(super) problem: Leaf,
    pub(super) answer: Leaf,
    pub(super) solution: Option<Leaf>,
    pub(super) id: Option<Leaf>,
    pub(super) images: Option<Leaf>,
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
    pub(super) fn find(path: &Path, metadata: &ParquetMetaData) -> Result<Self> {
        let schema = metadata.file_metadata().schema_descr();
        let error = |reason: String| Error::Schema {
            path: path.to_owned(),
            reason,
        };
        let flat = |name: &str, physical: &[Physical]| -> Result<Option<Leaf>> {
            let mut found = schema
                .columns()
                .iter()
                .enumerate()
                .filter(|(_, c)| c.path().parts().first().is_some_and(|p| p == name));
            let Some((index, column)) = found.next() else {
                return Ok(None);
            };
            if column.path().parts().len() > 1
                || column.max_rep_level() > 0
                || !physical.contains(&column.physical_type())
            {
                return Err(error(format!("column {name:?} is not one string per row")));
            }
            Ok(Some(Leaf {
                index,
                physical: column.physical_type(),
                entry_level: 0,
            }))
        };
        let text = [Physical::BYTE_ARRAY];
        let required = |name: &str| {
            let names: Vec<&str> = schema
                .root_schema()
                .get_fields()
                .iter()
                .map(|field| field.name())
                .take(20)
                .collect();
            flat(name, &text)?
                .ok_or_else(|| error(format!("no column {name:?}; it has {}", names.join(", "))))
        };
        Ok(Self {
            problem: match flat("prompt", &text) {
                Ok(Some(leaf)) if flat("problem", &text)?.is_none() => leaf,
                _ => required("problem")?,
            },
            answer: required("answer")?,
            solution: flat("solution", &text)?,
            id: flat(
                "id",
                &[Physical::BYTE_ARRAY, Physical::INT32, Physical::INT64],
            )?,
            images: find_images(metadata).map_err(error)?,
        })
    }
}

/// `images.list.element.bytes`, whatever the writer calls the levels between.
fn find_images(metadata: &ParquetMetaData) -> Result<Option<Leaf>, String> {
    let schema = metadata.file_metadata().schema_descr();
    let columns = schema.columns().iter().enumerate();
    let under: Vec<_> = columns
        .filter(|(_, c)| c.path().parts().first().is_some_and(|p| p == "images"))
        .collect();
    if under.is_empty() {
        return Ok(None);
    }
    let with_bytes = under
        .iter()
        .find(|(_, c)| under.len() == 1 || c.path().parts().last().is_some_and(|p| p == "bytes"));
    let Some(&(index, column)) = with_bytes else {
        return Err("column \"images\" has no field \"bytes\"".to_owned());
    };
    if column.physical_type() != Physical::BYTE_ARRAY || column.max_rep_level() > 1 {
        return Err("column \"images\" is not a list of encoded images".to_owned());
    }
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
    Ok(Some(Leaf {
        index,
        physical: Physical::BYTE_ARRAY,
        entry_level,
    }))
}
