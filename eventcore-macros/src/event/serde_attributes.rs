//! Serde attributes that would hide the variants from the event codec.
//!
//! A payload is the content of a variant as serde's default (externally tagged) representation writes it. Attributes of
//! fields, and those that only concern names, all work; these here write or read something else than a variant.

use crate::names::Errors;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Meta, Token};

/// Whether unknown fields are refused.
pub(crate) fn denies_unknown_fields(attributes: &[Attribute]) -> bool {
    metas(attributes).any(|meta| meta.path().is_ident("deny_unknown_fields"))
}

/// Reports what cannot stand on an enum of events.
pub(crate) fn check_enum(attributes: &[Attribute], errors: &mut Errors) {
    for meta in metas(attributes) {
        let Some(name) = meta.path().get_ident().map(ToString::to_string) else { continue };
        let advice = match name.as_str() {
            "tag" | "content" | "untagged" => {
                "remove it: the stored event type already tells the variants apart, and the payload is the variant's fields"
            }
            "from" | "into" | "try_from" => {
                "remove it and convert in an upcaster or in the fields' types: each variant is stored on its own"
            }
            "remote" | "field_identifier" | "variant_identifier" => {
                "remove it: the event needs its own derived `Serialize` and `Deserialize`"
            }
            _ => continue,
        };
        errors.push(refused(&meta, &name, "an enum of events", advice));
    }
}

/// Reports what cannot stand on a variant that is an event type.
pub(crate) fn check_variant(attributes: &[Attribute], errors: &mut Errors) {
    for meta in metas(attributes) {
        let Some(name) = meta.path().get_ident().map(ToString::to_string) else { continue };
        let advice = match name.as_str() {
            "skip" | "skip_serializing" | "skip_deserializing" => {
                "every variant must be written and read: remove the attribute, or take the variant out of the event"
            }
            "other" => "unknown event types are reported by `decode`, they need no variant",
            "untagged" => "remove it: the stored event type already tells the variants apart",
            _ => continue,
        };
        errors.push(refused(&meta, &name, "a variant of an event", advice));
    }
}

fn refused(meta: &Meta, name: &str, place: &str, advice: &str) -> syn::Error {
    syn::Error::new(meta.span(), format!("`#[serde({name})]` does not work on {place}; {advice}"))
}

/// The metas of all `#[serde(..)]`. What does not parse is left for serde's own derive to report.
fn metas(attributes: &[Attribute]) -> impl Iterator<Item = Meta> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"))
        .filter_map(|attribute| attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok())
        .flatten()
}
