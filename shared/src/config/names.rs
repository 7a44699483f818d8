//! Several names in one value.

use std::convert::Infallible;
use std::ops::Deref;
use std::str::FromStr;

use serde::Serialize;

/// Names separated by commas; in a file a list of strings is as good. May be empty: that undoes a saved key.
#[derive(Serialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(Vec<String>);

impl FromStr for Names {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let names = text.split(',').map(str::trim);
        Ok(Self(
            names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        ))
    }
}

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}
