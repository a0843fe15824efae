//! A serializer that refuses what JSON would lose.
//!
//! `serde_json` writes NaN and the infinities as `null`, and values nested deeper than it reads back. An event is kept for
//! ever, so what could not be read again is refused before it is stored.

use serde::ser::{
    self, Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::fmt::Display;

/// The deepest nesting of arrays and objects that `serde_json` reads.
const MAX_DEPTH: u8 = 127;

/// Passes everything on to `inner`, except what cannot be read again.
pub(crate) struct Strict<S> {
    inner: S,
    /// How many more levels of arrays and objects may be entered.
    levels: u8,
}

impl<S: Serializer> Strict<S> {
    /// A serializer for a whole payload.
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, levels: MAX_DEPTH }
    }

    /// The levels that are left within `entered` arrays or objects.
    fn within(&self, entered: u8) -> Result<u8, S::Error> {
        self.levels.checked_sub(entered).ok_or_else(|| {
            S::Error::custom(format_args!("it is nested deeper than {MAX_DEPTH} levels, which could not be read again"))
        })
    }
}

fn not_finite<E: ser::Error>(value: impl Display) -> E {
    E::custom(format_args!("JSON has no number for {value}, and `null` could not be read again as one"))
}

/// Passes a scalar on.
macro_rules! scalars {
    ($($method:ident($ty:ty);)*) => {
        $(fn $method(self, value: $ty) -> Result<Self::Ok, Self::Error> {
            self.inner.$method(value)
        })*
    };
}

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Within<S::SerializeSeq>;
    type SerializeTuple = Within<S::SerializeTuple>;
    type SerializeTupleStruct = Within<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Within<S::SerializeTupleVariant>;
    type SerializeMap = Within<S::SerializeMap>;
    type SerializeStruct = Within<S::SerializeStruct>;
    type SerializeStructVariant = Within<S::SerializeStructVariant>;

    scalars! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    fn serialize_f32(self, value: f32) -> Result<Self::Ok, Self::Error> {
        if value.is_finite() { self.inner.serialize_f32(value) } else { Err(not_finite(value)) }
    }

    fn serialize_f64(self, value: f64) -> Result<Self::Ok, Self::Error> {
        if value.is_finite() { self.inner.serialize_f64(value) } else { Err(not_finite(value)) }
    }

    fn serialize_none(self) -> Result<Self::Ok, Self::Error> {
        self.inner.serialize_none()
    }

    fn serialize_unit(self) -> Result<Self::Ok, Self::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, Self::Error> {
        self.inner.serialize_some(&Value { value, levels: self.levels })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Self::Error> {
        self.inner.serialize_newtype_struct(name, &Value { value, levels: self.levels })
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<Self::Ok, Self::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Self::Error> {
        let levels = self.within(1)?;
        self.inner.serialize_newtype_variant(name, index, variant, &Value { value, levels })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, Self::Error> {
        let levels = self.within(1)?;
        Ok(Within { inner: self.inner.serialize_seq(len)?, levels })
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, Self::Error> {
        let levels = self.within(1)?;
        Ok(Within { inner: self.inner.serialize_tuple(len)?, levels })
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, Self::Error> {
        let levels = self.within(1)?;
        Ok(Within { inner: self.inner.serialize_tuple_struct(name, len)?, levels })
    }

    /// `{"Variant":[..]}` is two levels.
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        let levels = self.within(2)?;
        Ok(Within { inner: self.inner.serialize_tuple_variant(name, index, variant, len)?, levels })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, Self::Error> {
        let levels = self.within(1)?;
        Ok(Within { inner: self.inner.serialize_map(len)?, levels })
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, Self::Error> {
        let levels = self.within(1)?;
        Ok(Within { inner: self.inner.serialize_struct(name, len)?, levels })
    }

    /// `{"Variant":{..}}` is two levels.
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        let levels = self.within(2)?;
        Ok(Within { inner: self.inner.serialize_struct_variant(name, index, variant, len)?, levels })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<Self::Ok, Self::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A value within an array or object, serialized with the levels that are left there.
struct Value<'a, T: ?Sized> {
    value: &'a T,
    levels: u8,
}

impl<T: Serialize + ?Sized> Serialize for Value<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Strict { inner: serializer, levels: self.levels })
    }
}

/// An array or object that is being written.
pub(crate) struct Within<C> {
    inner: C,
    levels: u8,
}

/// Passes on elements without keys.
macro_rules! elements {
    ($($compound:ident::$method:ident;)*) => {
        $(impl<C: $compound> $compound for Within<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
                self.inner.$method(&Value { value, levels: self.levels })
            }

            fn end(self) -> Result<Self::Ok, Self::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

/// Passes on named fields.
macro_rules! fields {
    ($($compound:ident;)*) => {
        $(impl<C: $compound> $compound for Within<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Self::Error> {
                self.inner.serialize_field(key, &Value { value, levels: self.levels })
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), Self::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<Self::Ok, Self::Error> {
                self.inner.end()
            }
        })*
    };
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

/// Keys are passed on as they are: `serde_json` itself refuses those that JSON cannot hold.
impl<C: SerializeMap> SerializeMap for Within<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Self::Error> {
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        self.inner.serialize_value(&Value { value, levels: self.levels })
    }

    fn end(self) -> Result<Self::Ok, Self::Error> {
        self.inner.end()
    }
}
