//! `#[derive(Command)]`.

mod expand;
mod model;

use proc_macro2::TokenStream;
use syn::DeriveInput;

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let command = model::CommandInput::parse(input)?;
    Ok(expand::expand(&command))
}
