//! A problem's text with its images in their places.

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Text(String),
    /// The next image.
    Image,
}

/// The placeholders of a problem do not match its images.
#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
#[error("the problem has {placeholders} <image> placeholders for {images} images{}", hint(*placeholders))]
pub struct Mismatch {
    placeholders: usize,
    images: usize,
}

fn hint(placeholders: usize) -> &'static str {
    match placeholders {
        0 => "; a prompt template can put them in, as in `<image>{{ problem }}`",
        _ => "",
    }
}

/// Cuts `problem` at each `<image>`, the placeholder of the field's data sets. Text keeps its white space.
///
/// # Errors
/// When the number of placeholders is not `num_images`.
pub fn content_parts(problem: &str, num_images: usize) -> Result<Vec<Part>, Mismatch> {
    let pieces: Vec<&str> = problem.split("<image>").collect();
    let placeholders = pieces.len().saturating_sub(1);
    if placeholders != num_images {
        return Err(Mismatch {
            placeholders,
            images: num_images,
        });
    }
    let mut parts = Vec::with_capacity(2 * pieces.len());
    for (index, text) in pieces.into_iter().enumerate() {
        if index > 0 {
            parts.push(Part::Image);
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_their_places() {
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(
            content_parts("<image>Find x.", 1).unwrap(),
            [Part::Image, text("Find x.")]
        );
        assert_eq!(
            content_parts("a <image><image> b", 2).unwrap(),
            [text("a "), Part::Image, Part::Image, text(" b")]
        );
        assert_eq!(content_parts("no image", 0).unwrap(), [text("no image")]);
        assert_eq!(content_parts("", 0).unwrap(), []);
        let message = content_parts("<image>", 2).unwrap_err().to_string();
        assert_eq!(
            message,
            "the problem has 1 <image> placeholders for 2 images"
        );
        let message = content_parts("x", 1).unwrap_err().to_string();
        assert!(
            message.ends_with("as in `<image>{{ problem }}`"),
            "{message}"
        );
        assert!(content_parts("<image>", 0).is_err());
    }
}
