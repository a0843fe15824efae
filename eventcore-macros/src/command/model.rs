//! What a command is, read from its definition and checked.

use crate::names::{self, Errors};
use proc_macro2::Span;
use quote::format_ident;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Field, GenericArgument, GenericParam, Generics, Ident, Index, LitStr, Member, Meta,
    PathArguments, Type, TypeGroup, TypeParen, Visibility,
};

/// A struct that derives `Command`.
pub(crate) struct CommandInput<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) vis: &'a Visibility,
    pub(crate) generics: &'a Generics,
    pub(crate) command_type: String,
    pub(crate) streams: Vec<StreamField<'a>>,
}

/// A field that names a stream, or several.
pub(crate) struct StreamField<'a> {
    /// The field of the command.
    pub(crate) member: Member,
    /// The field of the handles.
    pub(crate) handle: Ident,
    pub(crate) many: Many,
    /// The type that names one stream.
    pub(crate) element: &'a Type,
    pub(crate) read_only: bool,
}

/// How many streams a field names.
#[derive(Clone, Copy)]
pub(crate) enum Many {
    One,
    Vec,
    Option,
}

impl<'a> CommandInput<'a> {
    pub(crate) fn parse(input: &'a DeriveInput) -> syn::Result<Self> {
        let data = match &input.data {
            Data::Struct(data) => data,
            Data::Enum(data) => {
                let advice = "a command is a struct; make each variant of this enum a command of its own";
                return Err(syn::Error::new(data.enum_token.span(), advice));
            }
            Data::Union(data) => {
                return Err(syn::Error::new(data.union_token.span(), "a command is a struct, it cannot be a union"));
            }
        };
        let mut errors = Errors::default();
        if let Some(lifetime) = input.generics.params.iter().find(|p| matches!(p, GenericParam::Lifetime(_))) {
            errors.push(syn::Error::new(
                lifetime.span(),
                "a command cannot borrow: it is decided again when it meets a conflict, so it must own its data",
            ));
        }
        if let Some(attribute) = input.attrs.iter().find(|a| a.path().is_ident("stream")) {
            errors.push(syn::Error::new(attribute.path().span(), "`#[stream]` belongs on a field"));
        }
        let command_type = errors.ok(command_type(input));
        let mut streams = Vec::new();
        for (index, field) in (0u32..).zip(&data.fields) {
            if let Some(attribute) = field.attrs.iter().find(|a| a.path().is_ident("command")) {
                errors.push(syn::Error::new(attribute.path().span(), "`#[command(..)]` belongs on the struct"));
            }
            streams.extend(errors.ok(StreamField::parse(index, field)).flatten());
        }
        let none_marked = !data.fields.iter().any(|field| field.attrs.iter().any(|a| a.path().is_ident("stream")));
        if none_marked {
            errors.push(syn::Error::new(
                input.ident.span(),
                "a command needs at least one stream: mark the fields that name its streams with `#[stream]`",
            ));
        }
        errors.finish(Self {
            ident: &input.ident,
            vis: &input.vis,
            generics: &input.generics,
            command_type: command_type.unwrap_or_default(),
            streams,
        })
    }
}

impl<'a> StreamField<'a> {
    fn parse(index: u32, field: &'a Field) -> syn::Result<Option<Self>> {
        let mut attributes = field.attrs.iter().filter(|a| a.path().is_ident("stream"));
        let Some(attribute) = attributes.next() else { return Ok(None) };
        if let Some(second) = attributes.next() {
            return Err(syn::Error::new(second.path().span(), "`#[stream]` is given twice"));
        }
        let read_only = read_only(attribute)?;
        let (many, element) = elements(&field.ty);
        let (member, handle) = match &field.ident {
            Some(ident) => (Member::Named(ident.clone()), ident.clone()),
            None => {
                let span = field.ty.span();
                (Member::Unnamed(Index { index, span }), format_ident!("stream_{index}", span = span))
            }
        };
        Ok(Some(Self { member, handle, many, element, read_only }))
    }
}

/// Whether `attribute`, a `#[stream]`, says `read_only`.
fn read_only(attribute: &Attribute) -> syn::Result<bool> {
    let usage =
        "write `#[stream]` for a stream that is read and written, `#[stream(read_only)]` for one that is only read";
    match &attribute.meta {
        Meta::Path(_) => Ok(false),
        Meta::NameValue(_) => Err(syn::Error::new(attribute.path().span(), usage)),
        Meta::List(list) => {
            let mut found: Option<Span> = None;
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("read_only") {
                    return Err(meta.error(format!("unknown stream attribute; {usage}")));
                }
                if found.replace(meta.path.span()).is_some() {
                    return Err(meta.error("`read_only` is given twice"));
                }
                Ok(())
            })?;
            found.map(|_| true).ok_or_else(|| syn::Error::new(list.path.span(), usage))
        }
    }
}

/// `Vec<T>` and `Option<T>` are recognised by the last segment of their path: a macro sees no further than the text.
fn elements(ty: &Type) -> (Many, &Type) {
    let one = (Many::One, ty);
    // A type that comes out of a macro stands in an invisible group.
    let mut plain = ty;
    while let Type::Group(TypeGroup { elem, .. }) | Type::Paren(TypeParen { elem, .. }) = plain {
        plain = elem;
    }
    let Type::Path(path) = plain else { return one };
    let Some(last) = path.path.segments.last() else { return one };
    let many = match last.ident.to_string().as_str() {
        "Vec" => Many::Vec,
        "Option" => Many::Option,
        _ => return one,
    };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return one };
    match arguments.args.first() {
        Some(GenericArgument::Type(element)) if arguments.args.len() == 1 => (many, element),
        _ => one,
    }
}

fn command_type(input: &DeriveInput) -> syn::Result<String> {
    let mut name: Option<String> = None;
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("command")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown command attribute; there is `name = \"..\"`"));
            }
            let literal: LitStr = meta.value()?.parse()?;
            if name.replace(names::checked("the command's name", &literal)?).is_some() {
                return Err(meta.error("`name` is given twice"));
            }
            Ok(())
        })?;
    }
    Ok(name.unwrap_or_else(|| input.ident.unraw().to_string()))
}
