//! What stands in `#[event(..)]`.

use crate::names;
use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::token::Paren;
use syn::{Attribute, ExprPath, LitInt, LitStr};

/// The highest schema version: what the core and a signed 32-bit column of a database can hold.
const MAX_VERSION: u32 = i32::MAX as u32;

/// One `#[event(..)]` after another, put together.
#[derive(Default)]
pub(crate) struct EventAttributes {
    pub(crate) namespace: Option<Located<String>>,
    pub(crate) name: Option<Located<String>>,
    pub(crate) version: Option<Located<u32>>,
    pub(crate) aliases: Vec<Located<String>>,
    pub(crate) upcasts: Vec<Upcast>,
    pub(crate) nested: Option<Span>,
}

/// A value and where it stands.
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// `upcast(from = 1, with = path)`.
pub(crate) struct Upcast {
    pub(crate) from: Located<u32>,
    pub(crate) with: ExprPath,
}

impl EventAttributes {
    /// Reads all `#[event(..)]` among `attributes`.
    pub(crate) fn parse(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut found = Self::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| found.parse_one(&meta))?;
        }
        Ok(found)
    }

    fn parse_one(&mut self, meta: &ParseNestedMeta) -> syn::Result<()> {
        let span = meta.path.span();
        if meta.path.is_ident("namespace") {
            let literal: LitStr = meta.value()?.parse()?;
            let value = names::checked("the namespace", &literal)?;
            set(&mut self.namespace, Located { value, span: literal.span() }, span, "namespace")
        } else if meta.path.is_ident("name") {
            let literal: LitStr = meta.value()?.parse()?;
            let value = names::checked("the name", &literal)?;
            set(&mut self.name, Located { value, span: literal.span() }, span, "name")
        } else if meta.path.is_ident("version") {
            set(&mut self.version, version(meta)?, span, "version")
        } else if meta.path.is_ident("alias") {
            let literal: LitStr = meta.value()?.parse()?;
            let value = names::checked("the alias", &literal)?;
            self.aliases.push(Located { value, span: literal.span() });
            Ok(())
        } else if meta.path.is_ident("upcast") {
            self.upcasts.push(upcast(meta)?);
            Ok(())
        } else if meta.path.is_ident("nested") {
            set(&mut self.nested, span, span, "nested")
        } else {
            Err(meta.error("unknown event attribute; there are: namespace, name, version, alias, upcast, nested"))
        }
    }

    /// An error if anything stands here: `place` takes no event attributes.
    pub(crate) fn refuse(attributes: &[Attribute], place: &str) -> syn::Result<()> {
        match attributes.iter().find(|a| a.path().is_ident("event")) {
            Some(attribute) => {
                Err(syn::Error::new(attribute.path().span(), format!("no event attributes are allowed on {place}")))
            }
            None => Ok(()),
        }
    }
}

fn set<T>(slot: &mut Option<T>, value: T, span: Span, name: &str) -> syn::Result<()> {
    if slot.is_some() {
        return Err(syn::Error::new(span, format!("`{name}` is given twice")));
    }
    *slot = Some(value);
    Ok(())
}

fn version(meta: &ParseNestedMeta) -> syn::Result<Located<u32>> {
    let literal: LitInt = meta.value()?.parse()?;
    let value = literal.base10_parse::<u32>().ok().filter(|version| (1..=MAX_VERSION).contains(version));
    match value {
        Some(value) => Ok(Located { value, span: literal.span() }),
        None => Err(syn::Error::new(literal.span(), format!("a schema version is a number from 1 to {MAX_VERSION}"))),
    }
}

fn upcast(upcast: &ParseNestedMeta) -> syn::Result<Upcast> {
    let usage = "an upcaster is declared as `upcast(from = 1, with = path::to::function)`";
    if !upcast.input.peek(Paren) {
        return Err(upcast.error(usage));
    }
    let (mut from, mut with) = (None, None);
    upcast.parse_nested_meta(|meta| {
        let span = meta.path.span();
        if meta.path.is_ident("from") {
            set(&mut from, version(&meta)?, span, "from")
        } else if meta.path.is_ident("with") {
            set(&mut with, meta.value()?.parse::<ExprPath>()?, span, "with")
        } else {
            Err(meta.error(format!("unknown here; {usage}")))
        }
    })?;
    match (from, with) {
        (Some(from), Some(with)) => Ok(Upcast { from, with }),
        _ => Err(upcast.error(usage)),
    }
}
