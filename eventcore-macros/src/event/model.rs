//! What an event is, read from its definition and checked.

use super::attributes::{EventAttributes, Located, Upcast};
use super::serde_attributes;
use crate::names::{self, Errors};
use proc_macro2::Span;
use std::collections::HashMap;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Fields, GenericParam, Generics, Ident, Type};

/// A type that derives `Event`.
pub(crate) struct EventInput<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) shape: Shape<'a>,
}

pub(crate) enum Shape<'a> {
    /// One event type.
    Struct { stored: StoredType, unit: bool },
    /// One event type for each variant that is not nested.
    Enum { variants: Vec<Variant<'a>>, denies_unknown_fields: bool },
}

pub(crate) struct Variant<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) kind: VariantKind<'a>,
}

pub(crate) enum VariantKind<'a> {
    Stored(StoredType),
    /// Delegates to another event.
    Nested(&'a Type),
}

/// An event type as it is stored.
pub(crate) struct StoredType {
    pub(crate) name: Located<String>,
    pub(crate) version: u32,
    pub(crate) aliases: Vec<Located<String>>,
    /// Ordered by version, without gaps up to `version`.
    pub(crate) upcasts: Vec<Upcast>,
}

impl<'a> EventInput<'a> {
    pub(crate) fn parse(input: &'a DeriveInput) -> syn::Result<Self> {
        if let Some(lifetime) = input.generics.params.iter().find(|p| matches!(p, GenericParam::Lifetime(_))) {
            return Err(syn::Error::new(
                lifetime.span(),
                "an event cannot borrow: it is read back from the store, so it must own its data",
            ));
        }
        let container = EventAttributes::parse(&input.attrs)?;
        if let Some(span) = container.nested {
            return Err(syn::Error::new(span, "`nested` belongs on a variant that holds another event"));
        }
        let shape = match &input.data {
            Data::Struct(data) => {
                refuse_on_fields(&data.fields)?;
                let name = own_name(&container, &input.ident)?;
                Shape::Struct { stored: StoredType::new(name, container)?, unit: matches!(data.fields, Fields::Unit) }
            }
            Data::Enum(data) => parse_enum(input, data, &container)?,
            Data::Union(data) => {
                return Err(syn::Error::new(
                    data.union_token.span(),
                    "a union cannot be an event; use an enum or a struct",
                ));
            }
        };
        let event = Self { ident: &input.ident, generics: &input.generics, shape };
        event.check_names_differ()?;
        Ok(event)
    }

    /// Every event type that is stored under a name of this event's own.
    pub(crate) fn stored_types(&self) -> impl Iterator<Item = &StoredType> {
        let (one, many) = match &self.shape {
            Shape::Struct { stored, .. } => (Some(stored), None),
            Shape::Enum { variants, .. } => (None, Some(variants)),
        };
        one.into_iter().chain(many.into_iter().flatten().filter_map(|variant| match &variant.kind {
            VariantKind::Stored(stored) => Some(stored),
            VariantKind::Nested(_) => None,
        }))
    }

    fn check_names_differ(&self) -> syn::Result<()> {
        let (mut errors, mut seen) = (Errors::default(), HashMap::new());
        for stored in self.stored_types() {
            for name in std::iter::once(&stored.name).chain(&stored.aliases) {
                if let Some(other) = seen.insert(&name.value, &stored.name.value) {
                    let holder =
                        if *other == name.value { String::new() } else { format!(" (as an alias of `{other}`)") };
                    errors.push(syn::Error::new(
                        name.span,
                        format!("the event type `{}` exists already in `{}`{holder}", name.value, self.ident),
                    ));
                }
            }
        }
        errors.finish(())
    }
}

fn parse_enum<'a>(input: &'a DeriveInput, data: &'a DataEnum, container: &EventAttributes) -> syn::Result<Shape<'a>> {
    let mut errors = Errors::default();
    if data.variants.is_empty() {
        errors.push(syn::Error::new(input.ident.span(), "an event needs at least one variant"));
    }
    for (name, span) in [
        ("name", container.name.as_ref().map(|found| found.span)),
        ("version", container.version.as_ref().map(|found| found.span)),
        ("alias", container.aliases.first().map(|found| found.span)),
        ("upcast", container.upcasts.first().map(|found| found.from.span)),
    ] {
        if let Some(span) = span {
            errors
                .push(syn::Error::new(span, format!("`{name}` belongs on a variant; the enum takes only `namespace`")));
        }
    }
    let (mut variants, mut any_stored) = (Vec::new(), false);
    for variant in &data.variants {
        let Some(attributes) = errors.ok(EventAttributes::parse(&variant.attrs)) else { continue };
        errors.ok(refuse_on_fields(&variant.fields));
        let kind = if let Some(span) = attributes.nested {
            errors.ok(nested(span, &attributes, &variant.fields)).map(VariantKind::Nested)
        } else {
            any_stored = true;
            if let Some(namespace) = &attributes.namespace {
                errors.push(syn::Error::new(namespace.span, "`namespace` belongs on the enum, not on a variant"));
            }
            let name = match &container.namespace {
                Some(namespace) => errors.ok(full_name(namespace, &attributes, &variant.ident)),
                None => None,
            };
            name.and_then(|name| errors.ok(StoredType::new(name, attributes))).map(VariantKind::Stored)
        };
        if let Some(kind) = kind {
            variants.push(Variant { ident: &variant.ident, kind });
        }
    }
    if any_stored {
        if container.namespace.is_none() {
            errors.push(missing_namespace(&input.ident));
        }
        // Nested variants count too: they must not shift the numbers by which serde knows the variants.
        serde_attributes::check_enum(&input.attrs, &mut errors);
        for variant in &data.variants {
            serde_attributes::check_variant(&variant.attrs, &mut errors);
        }
    }
    errors
        .finish(Shape::Enum { variants, denies_unknown_fields: serde_attributes::denies_unknown_fields(&input.attrs) })
}

impl StoredType {
    fn new(name: Located<String>, attributes: EventAttributes) -> syn::Result<Self> {
        let EventAttributes { version, aliases, mut upcasts, .. } = attributes;
        let version = version.map_or(1, |found| found.value);
        let mut errors = Errors::default();
        upcasts.sort_by_key(|upcast| upcast.from.value);
        for (index, upcast) in upcasts.iter().enumerate() {
            let from = upcast.from.value;
            let next = upcasts.get(index + 1).map_or(version, |next| next.from.value);
            if from >= version {
                errors.push(syn::Error::new(
                    upcast.from.span,
                    format!(
                        "an upcaster from version {from} leads to {0}, but the current version is {version}; \
                         raise it with `version = {0}`",
                        u64::from(from) + 1
                    ),
                ));
            } else if from == next {
                errors.push(syn::Error::new(
                    upcasts.get(index + 1).map_or(upcast.from.span, |next| next.from.span),
                    format!("there are two upcasters from version {from}"),
                ));
            } else if from + 1 < next.min(version) {
                errors.push(syn::Error::new(
                    upcast.from.span,
                    format!(
                        "this upcaster leads to version {0}, but there is none from {0}, and the current version is {version}",
                        from + 1
                    ),
                ));
            }
        }
        errors.finish(Self { name, version, aliases, upcasts })
    }
}

fn own_name(container: &EventAttributes, ident: &Ident) -> syn::Result<Located<String>> {
    match &container.namespace {
        Some(namespace) => full_name(namespace, container, ident),
        None => Err(missing_namespace(ident)),
    }
}

fn missing_namespace(ident: &Ident) -> syn::Error {
    let advice = "an event needs a namespace, which begins its stored names: add `#[event(namespace = \"..\")]`";
    syn::Error::new(ident.span(), advice)
}

fn full_name(namespace: &Located<String>, attributes: &EventAttributes, ident: &Ident) -> syn::Result<Located<String>> {
    let (part, span) = match &attributes.name {
        Some(name) => (name.value.clone(), name.span),
        None => (ident.unraw().to_string(), ident.span()),
    };
    let namespace = &namespace.value;
    if let Some(rest) = part.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix('.')) {
        let problem = format!("the namespace `{namespace}` is put before the name; write `name = {rest:?}`");
        return Err(syn::Error::new(span, problem));
    }
    let value = format!("{namespace}.{part}");
    names::check("the stored name", &value).map_err(|problem| syn::Error::new(span, problem))?;
    Ok(Located { value, span })
}

fn nested<'a>(span: Span, attributes: &EventAttributes, fields: &'a Fields) -> syn::Result<&'a Type> {
    let EventAttributes { namespace, name, version, aliases, upcasts, nested: _ } = attributes;
    if namespace.is_some() || name.is_some() || version.is_some() || !aliases.is_empty() || !upcasts.is_empty() {
        return Err(syn::Error::new(
            span,
            "a nested variant takes no further event attributes: names and versions are those of the event it holds",
        ));
    }
    match fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => Err(syn::Error::new(span, "`nested` needs a variant with exactly one unnamed field, the event it holds")),
    }
}

fn refuse_on_fields(fields: &Fields) -> syn::Result<()> {
    let mut errors = Errors::default();
    for field in fields {
        errors.ok(EventAttributes::refuse(&field.attrs, "fields; serde attributes say how a field is stored"));
    }
    errors.finish(())
}
