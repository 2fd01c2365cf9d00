//! JSON whose objects keep the order of their keys.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A value of JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// null, true, false, a number or a string.
    Plain(serde_json::Value),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What an object has under `key`.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A string.
    pub fn text(&self) -> Option<&str> {
        let Self::Plain(value) = self else { return None };
        value.as_str()
    }

    /// A number.
    pub fn number(&self) -> Option<f64> {
        let Self::Plain(value) = self else { return None };
        value.as_f64()
    }

    /// A number of things.
    pub fn count(&self) -> Option<usize> {
        let n = self.number()?;
        (n >= 0.0 && n.fract() == 0.0 && n < 1e9).then_some(n as usize)
    }

    /// true or false.
    pub fn truth(&self) -> Option<bool> {
        let Self::Plain(value) = self else { return None };
        value.as_bool()
    }

    /// Whether both are the same value: objects whatever the order of their keys, numbers however they are written.
    pub fn is_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(a), Self::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_equal(b)),
            (Self::Object(a), Self::Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| other.get(key).is_some_and(|held| held.is_equal(value)))
            }
            (a, b) if a.number().is_some() => a.number() == b.number(),
            (a, b) => a == b,
        }
    }

    /// As it is written without white space.
    pub fn written(&self) -> String {
        match self {
            Self::Plain(value) => value.to_string(),
            Self::Array(list) => format!("[{}]", list.iter().map(Self::written).collect::<Vec<_>>().join(",")),
            Self::Object(entries) => {
                let entry = |(name, value): &(String, Self)| {
                    format!("{}:{}", serde_json::Value::String(name.clone()), value.written())
                };
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// What serde_json, where a crate has asked it to keep all digits, calls a number that it gives as an object.
const NUMBER: &str = "$serde_json::private::Number";

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Plain(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(Json::Plain(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Plain(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
                Ok(Json::Plain(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Plain(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Plain(serde_json::Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Json::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Json>()? {
                    if key == NUMBER {
                        let number = value.text().and_then(|digits| serde_json::from_str(digits).ok());
                        return number.map(Json::Plain).ok_or_else(|| serde::de::Error::custom("a number"));
                    }
                    entries.push((key, value));
                }
                Ok(Json::Object(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_it_was() {
        for text in
            [r#"{"b":[1,-2.5,1e300,0.1],"a":{"x":null,"y":true},"":"\"\\\n"}"#, "12345678901234567890", "-2.5", "[]"]
        {
            let json: Json = serde_json::from_str(text).unwrap();
            assert_eq!(json.written().replace("1e+300", "1e300"), text);
        }
        assert_eq!(serde_json::from_str::<Json>("-2.5").unwrap().number(), Some(-2.5));
        assert_eq!(serde_json::from_str::<Json>("3").unwrap().count(), Some(3));
        assert_eq!(serde_json::from_str::<Json>("3.5").unwrap().count(), None);
    }
}
