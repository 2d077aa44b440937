//! Enums that the database keeps as words: each word stands once, and is written, read and shown from there.

/// Makes an enum of words. [`Row::word`](super::Row::word) reads it, `Value::from` binds it; JSON and people get the word.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$meaning:meta])* $value:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$meaning])* $value),+
        }

        impl $name {
            /// The word.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = anyhow::Error;

            fn from_str(word: &str) -> anyhow::Result<Self> {
                match word {
                    $($word => Ok(Self::$value),)+
                    _ => anyhow::bail!("`{word}` is none of `{}`", [$($word),+].join("`, `")),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl From<$name> for $crate::store::Value {
            fn from(value: $name) -> Self {
                value.name().into()
            }
        }
    };
}

pub(super) use words;
