//! The text of a name.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use std::fmt;
use std::ops::Deref;

/// Text that is cheap to copy: up to 23 bytes stand in the value itself, longer text is shared, and that of the program
/// itself stays where it is.
///
/// Every event carries the name of its stream and of its type wherever it goes. Were they always shared, each copy would
/// change a counter somewhere in memory, and threads that deal with the same stream or type would take turns at it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(SmolStr);

impl Text {
    /// Text of the program itself.
    pub(crate) const fn of_program(text: &'static str) -> Self {
        Self(SmolStr::new_static(text))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(SmolStr::new(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(SmolStr::from(text))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashSet};
    use std::hash::{BuildHasher, RandomState};

    #[test]
    fn where_the_text_stands_makes_no_difference() {
        let state = RandomState::new();
        for text in ["a", "twenty-three bytes long", "one that is longer than what stands in the value"] {
            let (program, copied) = (Text::of_program(text), Text::from(text));
            assert_eq!(program, copied);
            assert_eq!(copied, Text::from(text.to_owned()));
            assert_eq!(&*copied, text);
            assert_eq!(state.hash_one(&program), state.hash_one(text), "a map can be asked by a `str`");
            assert_eq!(state.hash_one(&copied), state.hash_one(text));
            assert!(HashSet::from([program.clone()]).contains(&copied));
            assert!(BTreeSet::from([copied]).contains(&program));
        }
        assert!(Text::of_program("a") < Text::from("b") && Text::from("b") < Text::of_program("ba"));
    }
}
