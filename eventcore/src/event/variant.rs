//! Between an enum variant and its payload, through serde as the user wrote it.
//!
//! Serde's derived code hands a variant's number and its content to the serializer separately. Here the number is
//! checked and the content alone is written; when reading, the number comes from the stored event type. No
//! intermediate value is made in either direction.

use super::strict::Strict;
use serde::Deserialize;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IgnoredAny, IntoDeserializer, MapAccess, VariantAccess,
    Visitor,
};
use serde::ser::{self, Impossible, Serialize, Serializer};
use std::fmt;

type JsonDeserializer<'de> = serde_json::Deserializer<serde_json::de::StrRead<'de>>;

/// How the payload of an event type is written and read.
pub trait Codec {
    /// Appends the payload of `event` to `out`.
    fn encode<E: Serialize>(&self, event: &E, out: &mut Vec<u8>) -> Result<(), serde_json::Error>;

    /// The event whose payload is `json`, all of it.
    fn decode<E: DeserializeOwned>(&self, json: &[u8]) -> Result<E, serde_json::Error>;
}

/// A variant of an enum: the payload is its fields, `{}` if it has none.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Its number in the enum.
    pub index: u32,
    /// Whether `#[serde(deny_unknown_fields)]` stands on the enum. Serde heeds it for variants with named fields; here
    /// it also counts for those without fields.
    pub denies_unknown_fields: bool,
}

impl Codec for Variant {
    fn encode<E: Serialize>(&self, event: &E, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Serializer::new(out);
        event.serialize(VariantSerializer { content: Strict::new(&mut json), index: self.index })
    }

    fn decode<E: DeserializeOwned>(&self, json: &[u8]) -> Result<E, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(text(json)?);
        let event = E::deserialize(VariantDeserializer { json: &mut json, variant: *self })?;
        json.end()?;
        Ok(event)
    }
}

/// A struct: the payload is what its `Serialize` writes.
#[derive(Debug, Clone, Copy)]
pub struct Struct;

impl Codec for Struct {
    fn encode<E: Serialize>(&self, event: &E, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        event.serialize(Strict::new(&mut serde_json::Serializer::new(out)))
    }

    fn decode<E: DeserializeOwned>(&self, json: &[u8]) -> Result<E, serde_json::Error> {
        serde_json::from_str(text(json)?)
    }
}

/// JSON is UTF-8. Checked at once, that costs a fifth of what it does string by string.
fn text(json: &[u8]) -> Result<&str, serde_json::Error> {
    std::str::from_utf8(json).map_err(|error| de::Error::custom(format_args!("the payload is no JSON: {error}")))
}

/// A struct without fields: as a variant without fields, the payload is `{}`, where JSON usually has `null`.
#[derive(Debug, Clone, Copy)]
pub struct UnitStruct;

impl Codec for UnitStruct {
    fn encode<E: Serialize>(&self, event: &E, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let start = out.len();
        Struct.encode(event, out)?;
        if out.get(start..) == Some(b"null") {
            out.truncate(start);
            out.extend_from_slice(b"{}");
        }
        Ok(())
    }

    fn decode<E: DeserializeOwned>(&self, json: &[u8]) -> Result<E, serde_json::Error> {
        // With `#[serde(from = ..)]` it may have been written as anything.
        match serde_json::from_slice::<Fields>(json) {
            Ok(_) => serde_json::from_slice(b"null").or_else(|_| serde_json::from_slice(json)),
            Err(_) => serde_json::from_slice(json),
        }
    }
}

/// Takes a variant apart: checks its number, passes its content on.
struct VariantSerializer<S> {
    content: S,
    index: u32,
}

impl<S: Serializer> VariantSerializer<S> {
    fn check(&self, index: u32, variant: &str) -> Result<(), S::Error> {
        if index == self.index {
            return Ok(());
        }
        Err(ser::Error::custom(format_args!(
            "`Serialize` wrote the variant {variant} (number {index}) for the variant number {}",
            self.index
        )))
    }
}

fn not_a_variant<T, E: ser::Error>() -> Result<T, E> {
    Err(E::custom("`Serialize` of the event did not write an enum variant; derive it"))
}

macro_rules! refuse {
    ($($method:ident($($arg:ty),*) -> $ok:ident;)*) => {
        $(fn $method(self, $(_: $arg),*) -> Result<Self::$ok, Self::Error> { not_a_variant() })*
    };
}

impl<S: Serializer> Serializer for VariantSerializer<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Impossible<S::Ok, S::Error>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = Content<S::SerializeTuple>;
    type SerializeMap = Impossible<S::Ok, S::Error>;
    type SerializeStruct = Impossible<S::Ok, S::Error>;
    type SerializeStructVariant = Content<S::SerializeStruct>;

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<Self::Ok, Self::Error> {
        self.check(index, variant)?;
        ser::SerializeMap::end(self.content.serialize_map(Some(0))?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Self::Error> {
        self.check(index, variant)?;
        value.serialize(self.content)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        self.check(index, variant)?;
        self.content.serialize_tuple(len).map(Content)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        self.check(index, variant)?;
        self.content.serialize_struct(name, len).map(Content)
    }

    refuse! {
        serialize_bool(bool) -> Ok;
        serialize_i8(i8) -> Ok;
        serialize_i16(i16) -> Ok;
        serialize_i32(i32) -> Ok;
        serialize_i64(i64) -> Ok;
        serialize_i128(i128) -> Ok;
        serialize_u8(u8) -> Ok;
        serialize_u16(u16) -> Ok;
        serialize_u32(u32) -> Ok;
        serialize_u64(u64) -> Ok;
        serialize_u128(u128) -> Ok;
        serialize_f32(f32) -> Ok;
        serialize_f64(f64) -> Ok;
        serialize_char(char) -> Ok;
        serialize_str(&str) -> Ok;
        serialize_bytes(&[u8]) -> Ok;
        serialize_none() -> Ok;
        serialize_unit() -> Ok;
        serialize_unit_struct(&'static str) -> Ok;
        serialize_seq(Option<usize>) -> SerializeSeq;
        serialize_tuple(usize) -> SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> SerializeTupleStruct;
        serialize_map(Option<usize>) -> SerializeMap;
        serialize_struct(&'static str, usize) -> SerializeStruct;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, Self::Error> {
        not_a_variant()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<Self::Ok, Self::Error> {
        not_a_variant()
    }
}

/// The fields of a variant, written as a plain tuple or struct.
struct Content<S>(S);

impl<S: ser::SerializeTuple> ser::SerializeTupleVariant for Content<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        self.0.serialize_element(value)
    }

    fn end(self) -> Result<Self::Ok, Self::Error> {
        self.0.end()
    }
}

impl<S: ser::SerializeStruct> ser::SerializeStructVariant for Content<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Self::Error> {
        self.0.serialize_field(key, value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), Self::Error> {
        self.0.skip_field(key)
    }

    fn end(self) -> Result<Self::Ok, Self::Error> {
        self.0.end()
    }
}

/// Puts a variant together: its number is known, its content is the JSON.
struct VariantDeserializer<'a, 'de> {
    json: &'a mut JsonDeserializer<'de>,
    variant: Variant,
}

impl<'de> de::Deserializer<'de> for VariantDeserializer<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("`Deserialize` of the event did not ask for an enum; derive it"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for VariantDeserializer<'_, 'de> {
    type Error = serde_json::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Self::Error> {
        // By number, not by name: serde may have renamed the variant, the stored event type has a name of its own.
        let index: de::value::U32Deserializer<Self::Error> = self.variant.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for VariantDeserializer<'_, 'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        let Fields { first } = Fields::deserialize(self.json)?;
        match first.filter(|_| self.variant.denies_unknown_fields) {
            Some(field) => Err(de::Error::unknown_field(&field, &[])),
            None => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Self::Error> {
        seed.deserialize(self.json)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        de::Deserializer::deserialize_tuple(self.json, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        de::Deserializer::deserialize_struct(self.json, "", fields, visitor)
    }
}

/// An object nobody wants anything of. Fields of older events are ignored, as serde does it for named fields.
struct Fields {
    first: Option<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, as an event without fields is stored")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut first = None;
                while let Some((field, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    first.get_or_insert(field);
                }
                Ok(Fields { first })
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}
