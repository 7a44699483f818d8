//! Geometry3K: asked freely, without its options. Its files, InterGPS's folders or hiyouga's parquet, are a plain data set
//! (`shared::dataset`); what is asked is its `annotat_text` or `problem`.

use super::super::question::Question;
use super::super::rules::{self, Verdict};
use crate::reward::Verifier;

/// The box alone, as in training.
pub(super) fn score(question: &Question, response: &str, verifier: &Verifier) -> Verdict {
    rules::score_box(question, response, verifier)
}
