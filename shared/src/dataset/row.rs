//! A row of a parquet file -> a sample; what holds for a sample of any file.

use parquet::data_type::ByteArray;

use super::answer::unboxed;
use super::error::{Error, Result};
use super::image_folder::ImageFolder;
use super::limits::DatasetLimits;
use super::open::Sample;

/// A row as it is in the file: not yet UTF-8, nor within a row's limits.
#[derive(Default)]
pub(super) struct Row {
    pub(super) id: Option<ByteArray>,
    pub(super) problem: Option<ByteArray>,
    pub(super) answer: Option<ByteArray>,
    pub(super) solution: Option<ByteArray>,
    pub(super) images: Vec<ImageCell>,
}

/// An entry of a row's list of images.
#[derive(Clone)]
pub(super) enum ImageCell {
    /// An encoded image.
    Bytes(ByteArray),
    /// A file in the folder of images.
    Path(ByteArray),
    /// Neither.
    Null,
}

impl Row {
    /// `name` is the sample's id when it has none of its own.
    pub(super) fn sample(
        &self,
        name: String,
        folder: &ImageFolder,
        limits: &DatasetLimits,
    ) -> Result<Sample> {
        let id = match &self.id {
            Some(id) if id.len() <= 200 => String::from_utf8_lossy(id.data()).into_owned(),
            _ => name,
        };
        let text = |column: &str, value: Option<&ByteArray>| match value {
            None => Err(Error::sample(&id, format!("its {column} is null"))),
            Some(value) if value.len() > limits.max_text_bytes => Err(Error::sample(
                &id,
                format!(
                    "its {column} has {} bytes, at most {} allowed",
                    value.len(),
                    limits.max_text_bytes
                ),
            )),
            Some(value) => String::from_utf8(value.data().to_vec())
                .map_err(|_| Error::sample(&id, format!("its {column} is not UTF-8"))),
        };
        let problem = text("problem", self.problem.as_ref())?;
        let answer = text("answer", self.answer.as_ref())?;
        let solution = self
            .solution
            .as_ref()
            .map(|solution| text("solution", Some(solution)))
            .transpose()?;
        let mut images = Images::new(&id, self.images.len(), limits)?;
        for cell in &self.images {
            match cell {
                ImageCell::Bytes(bytes) => images.bytes(bytes.data())?,
                ImageCell::Path(path) => {
                    images.file(&String::from_utf8_lossy(path.data()), folder)?;
                }
                ImageCell::Null => images.null()?,
            }
        }
        let images = images.images;
        Ok(Sample {
            id,
            problem,
            answer,
            solution,
            images,
        })
    }
}

/// A row's images as they come together, within the limits.
pub(super) struct Images<'a> {
    id: &'a str,
    limits: &'a DatasetLimits,
    num_bytes: usize,
    pub(super) images: Vec<Vec<u8>>,
}

impl<'a> Images<'a> {
    pub(super) fn new(id: &'a str, num: usize, limits: &'a DatasetLimits) -> Result<Self> {
        let most = limits.max_images;
        if num > most {
            return Err(Error::sample(
                id,
                format!("{num} images, at most {most} allowed"),
            ));
        }
        Ok(Self {
            id,
            limits,
            num_bytes: 0,
            images: Vec::with_capacity(num),
        })
    }

    fn bytes(&mut self, image: &[u8]) -> Result<()> {
        let (number, most) = (self.images.len(), self.limits.max_image_bytes);
        if image.len() > most {
            let reason = format!(
                "image {number} has {} bytes, at most {most} allowed",
                image.len()
            );
            return Err(Error::sample(self.id, reason));
        }
        self.count(image.len())?;
        self.images.push(image.to_vec());
        Ok(())
    }

    pub(super) fn file(&mut self, path: &str, folder: &ImageFolder) -> Result<()> {
        let image = folder.read(path, self.limits).map_err(|reason| {
            let path: String = path.chars().take(200).collect();
            Error::sample(self.id, format!("image {path:?}: {reason}"))
        })?;
        self.count(image.len())?;
        self.images.push(image);
        Ok(())
    }

    fn null(&self) -> Result<()> {
        let reason = format!("image {} has neither bytes nor a path", self.images.len());
        Err(Error::sample(self.id, reason))
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.num_bytes = self.num_bytes.saturating_add(bytes);
        let most = self.limits.max_row_bytes;
        if self.num_bytes > most {
            let reason = format!("its images have more than {most} bytes together");
            return Err(Error::sample(self.id, reason));
        }
        Ok(())
    }
}

/// What holds for every sample, wherever it comes from; takes the answer out of its box.
pub(super) fn check(mut sample: Sample, limits: &DatasetLimits) -> Result<Sample> {
    let texts = [
        Some(&sample.problem),
        Some(&sample.answer),
        sample.solution.as_ref(),
    ];
    if texts
        .into_iter()
        .flatten()
        .any(|text| text.len() > limits.max_text_bytes)
    {
        return Err(Error::sample(
            &sample.id,
            format!("a text has more than {} bytes", limits.max_text_bytes),
        ));
    }
    sample.answer = unboxed(&sample.answer);
    if sample.answer.trim().is_empty() {
        return Err(Error::sample(&sample.id, "its answer is empty"));
    }
    Ok(sample)
}
