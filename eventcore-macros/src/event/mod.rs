//! `#[derive(Event)]`.

mod attributes;
mod expand;
mod model;
mod serde_attributes;

use proc_macro2::TokenStream;
use syn::DeriveInput;

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let event = model::EventInput::parse(input)?;
    Ok(expand::expand(&event))
}
