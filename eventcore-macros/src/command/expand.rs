//! The code of `#[derive(Command)]`.

use super::model::{CommandInput, Many, StreamField};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Generics, Ident, parse_quote};

pub(crate) fn expand(command: &CommandInput) -> TokenStream {
    let CommandInput { ident, vis, generics, command_type, streams } = command;
    let streams_ident = format_ident!("{}Streams", ident.unraw(), span = ident.span());
    let (_, ty_generics, where_clause) = generics.split_for_impl();
    let command_ty = quote! { #ident #ty_generics };
    let (plain_impl_generics, ..) = generics.split_for_impl();
    let bounded = bounded(command);
    let (impl_generics, _, impl_where_clause) = bounded.split_for_impl();

    let doc = format!("The streams of `{ident}`, lent to `handle`: only to these can it append.");
    let fields = streams.iter().map(|stream| {
        let (handle, ty) = (&stream.handle, stream.handle_type(&command_ty));
        let doc = format!("What `{}` of the command names.", stream.member.to_token_stream());
        quote! { #[doc = #doc] #vis #handle: #ty }
    });
    let handles: Vec<&Ident> = streams.iter().map(|stream| &stream.handle).collect();
    let labels = handles.iter().map(|handle| handle.unraw().to_string());
    let name = streams_ident.to_string();
    let binds = streams.iter().map(StreamField::bind);
    quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #vis struct #streams_ident #generics #where_clause {
            #(#fields,)*
            __discovered: ::eventcore::DiscoveredStreams<#command_ty>,
        }

        #[automatically_derived]
        impl #plain_impl_generics #streams_ident #ty_generics #where_clause {
            /// The streams that `discover` found.
            #[allow(dead_code)]
            #[must_use]
            #vis fn discovered(&self) -> &::eventcore::DiscoveredStreams<#command_ty> {
                &self.__discovered
            }
        }

        #[automatically_derived]
        impl #plain_impl_generics ::core::fmt::Debug for #streams_ident #ty_generics #where_clause {
            fn fmt(&self, __f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Formatter::debug_struct(__f, #name)
                    #(.field(#labels, &self.#handles))*
                    .field("discovered", &self.__discovered)
                    .finish()
            }
        }

        #[automatically_derived]
        impl #impl_generics ::eventcore::Command for #command_ty #impl_where_clause {
            type Streams = #streams_ident #ty_generics;

            fn command_type() -> &'static str {
                #command_type
            }

            fn bind(
                &self,
                __streams: &mut ::eventcore::StreamBinder<Self>,
            ) -> ::core::result::Result<Self::Streams, ::eventcore::ValidationError> {
                ::core::result::Result::Ok(#streams_ident {
                    #(#handles: #binds,)*
                    __discovered: ::eventcore::StreamBinder::discovered(__streams),
                })
            }
        }
    }
}

impl StreamField<'_> {
    fn handle_type(&self, command_ty: &TokenStream) -> TokenStream {
        let handle = if self.read_only { quote!(ReadHandle) } else { quote!(StreamHandle) };
        match self.many {
            Many::One => quote! { ::eventcore::#handle<#command_ty> },
            Many::Vec => quote! { ::std::vec::Vec<::eventcore::#handle<#command_ty>> },
            Many::Option => quote! { ::core::option::Option<::eventcore::#handle<#command_ty>> },
        }
    }

    /// The expression that declares the field's streams and takes their handles.
    fn bind(&self) -> TokenStream {
        let member = &self.member;
        // All of it at the field's type, so that one that names no stream is reported there.
        let span = self.element.span().resolved_at(Span::call_site());
        let method = Ident::new(if self.read_only { "read" } else { "write" }, span);
        let one = |stream| quote_spanned! { span => ::eventcore::StreamBinder::#method(__streams, #stream) };
        let element = one(quote_spanned! { span => __stream });
        match self.many {
            Many::One => {
                let bound = one(quote_spanned! { span => &self.#member });
                quote! { #bound? }
            }
            Many::Vec => quote! {
                ::core::iter::Iterator::collect::<::core::result::Result<_, ::eventcore::ValidationError>>(
                    ::core::iter::Iterator::map(self.#member.iter(), |__stream| #element)
                )?
            },
            Many::Option => quote! {
                match &self.#member {
                    ::core::option::Option::Some(__stream) => ::core::option::Option::Some(#element?),
                    ::core::option::Option::None => ::core::option::Option::None,
                }
            },
        }
    }
}

/// The generics of the impl: a generic command is one for those arguments that can be sent about and name streams.
fn bounded(command: &CommandInput) -> Generics {
    let mut generics = command.generics.clone();
    if generics.params.is_empty() {
        return generics;
    }
    let (ident, (_, ty_generics, _)) = (command.ident, command.generics.split_for_impl());
    let params: Vec<&Ident> = command.generics.type_params().map(|param| &param.ident).collect();
    let predicates = &mut generics.make_where_clause().predicates;
    predicates.push(parse_quote! { #ident #ty_generics: ::core::marker::Send + ::core::marker::Sync + 'static });
    for stream in &command.streams {
        let element = stream.element;
        if mentions(element.to_token_stream(), &params) {
            predicates.push(parse_quote! { #element: ::eventcore::StreamName });
        }
    }
    generics
}

fn mentions(tokens: TokenStream, idents: &[&Ident]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => idents.contains(&&ident),
        TokenTree::Group(group) => mentions(group.stream(), idents),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
