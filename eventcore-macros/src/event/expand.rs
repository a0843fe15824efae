//! The code of `#[derive(Event)]`.

use super::attributes::Upcast;
use super::model::{EventInput, Shape, StoredType, VariantKind};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Generics, Type, parse_quote};

pub(crate) fn expand(event: &EventInput) -> TokenStream {
    let ident = event.ident;
    let generics = bounded(event);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let statics = event.stored_types().enumerate().map(|(index, stored)| {
        let (name, version, static_name) = (&stored.name.value, stored.version, static_name(index));
        let aliases = stored.aliases.iter().map(|alias| &alias.value);
        quote! {
            static #static_name: ::eventcore::__private::StoredType =
                ::eventcore::__private::StoredType::new(#name, #version, &[#(#aliases),*]);
        }
    });
    let nested: Vec<&Type> = nested_types(event).map(|(_, ty)| ty).collect();
    let static_names: Vec<_> = event.stored_types().enumerate().map(|(index, _)| static_name(index)).collect();
    let names = event.stored_types().flat_map(StoredType::names);
    let Arms { event_type, schema_version, encode, decode, decode_nested } = arms(event);
    let checks = disjointness_checks(event);
    let (free_checks, inline_checks) = if event.generics.params.is_empty() {
        (quote! { #(const _: () = #checks;)* }, TokenStream::new())
    } else {
        (TokenStream::new(), quote! { #(const { #checks };)* })
    };
    quote! {
        #[doc(hidden)]
        #[allow(deprecated, unused_qualifications, clippy::absolute_paths)]
        const _: () = {
            #(#statics)*

            #[automatically_derived]
            impl #impl_generics ::eventcore::Event for #ident #ty_generics #where_clause {
                fn event_types() -> ::std::vec::Vec<::eventcore::EventTypeInfo> {
                    ::eventcore::__private::event_types(
                        &[#(&#static_names),*],
                        &[#(<#nested as ::eventcore::Event>::event_types),*],
                    )
                }

                fn event_type(&self) -> ::eventcore::EventType {
                    match self { #(#event_type)* }
                }

                fn schema_version(&self) -> ::eventcore::SchemaVersion {
                    match self { #(#schema_version)* }
                }

                fn encode(&self) -> ::core::result::Result<::eventcore::Payload, ::eventcore::EncodeError> {
                    match self { #(#encode)* }
                }

                fn decode(
                    __event_type: &::eventcore::EventType,
                    __schema_version: ::eventcore::SchemaVersion,
                    __payload: &::eventcore::Payload,
                ) -> ::core::result::Result<Self, ::eventcore::DecodeError> {
                    #inline_checks
                    match ::eventcore::EventType::as_str(__event_type) {
                        #(#decode)*
                        _ => {
                            #(#decode_nested)*
                            ::core::result::Result::Err(::eventcore::__private::unknown_type(__event_type))
                        }
                    }
                }
            }

            #[automatically_derived]
            impl #impl_generics ::eventcore::NestedEvent for #ident #ty_generics #where_clause {
                const NAMES: ::eventcore::EventNames = ::eventcore::EventNames {
                    own: &[#(#names),*],
                    nested: &[#(&<#nested as ::eventcore::NestedEvent>::NAMES),*],
                };
            }

            #free_checks
        };
    }
}

impl StoredType {
    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.aliases).map(|name| &name.value)
    }
}

/// The match arms of the trait's functions.
#[derive(Default)]
struct Arms {
    event_type: Vec<TokenStream>,
    schema_version: Vec<TokenStream>,
    encode: Vec<TokenStream>,
    decode: Vec<TokenStream>,
    decode_nested: Vec<TokenStream>,
}

impl Arms {
    fn stored(&mut self, index: usize, stored: &StoredType, pattern: &TokenStream, codec: &TokenStream) {
        let (static_name, names, upcasters) = (static_name(index), stored.names(), upcasters(&stored.upcasts));
        self.event_type.push(quote! { #pattern => #static_name.event_type(), });
        self.schema_version.push(quote! { #pattern => #static_name.schema_version(), });
        self.encode.push(quote! { #pattern => #static_name.encode(#codec, self), });
        self.decode.push(quote! {
            #(#names)|* => #static_name.decode(#codec, &[#(#upcasters),*], __event_type, __schema_version, __payload),
        });
    }

    fn nested(&mut self, variant: &Ident, ty: &Type) {
        self.event_type.push(quote! { Self::#variant(__inner) => ::eventcore::Event::event_type(__inner), });
        self.schema_version.push(quote! { Self::#variant(__inner) => ::eventcore::Event::schema_version(__inner), });
        self.encode.push(quote! { Self::#variant(__inner) => ::eventcore::Event::encode(__inner), });
        self.decode_nested.push(quote! {
            match <#ty as ::eventcore::Event>::decode(__event_type, __schema_version, __payload) {
                ::core::result::Result::Err(::eventcore::DecodeError::UnknownType { .. }) => {}
                __result => return ::core::result::Result::map(__result, Self::#variant),
            }
        });
    }
}

fn arms(event: &EventInput) -> Arms {
    let mut arms = Arms::default();
    match &event.shape {
        Shape::Struct { stored, unit } => {
            let codec = if *unit { quote!(UnitStruct) } else { quote!(Struct) };
            arms.stored(0, stored, &quote!(_), &quote!(::eventcore::__private::#codec));
        }
        Shape::Enum { variants, denies_unknown_fields } => {
            let mut stored_index = 0;
            for (index, variant) in (0u32..).zip(variants) {
                let name = variant.ident;
                match &variant.kind {
                    VariantKind::Stored(stored) => {
                        let codec = quote! {
                            ::eventcore::__private::Variant {
                                index: #index,
                                denies_unknown_fields: #denies_unknown_fields,
                            }
                        };
                        arms.stored(stored_index, stored, &quote!(Self::#name { .. }), &codec);
                        stored_index += 1;
                    }
                    VariantKind::Nested(ty) => arms.nested(name, ty),
                }
            }
        }
    }
    arms
}

fn upcasters(upcasts: &[Upcast]) -> impl Iterator<Item = TokenStream> {
    upcasts.iter().map(|upcast| {
        let (from, with) = (upcast.from.value, &upcast.with);
        // At the function's own place, so that a wrong signature is reported there.
        let apply = quote_spanned! { with.span().resolved_at(Span::call_site()) =>
            |__value| ::core::result::Result::map_err(#with(__value), ::core::convert::Into::into)
        };
        quote! { ::eventcore::__private::Upcaster { from: #from, apply: #apply } }
    })
}

fn static_name(index: usize) -> Ident {
    format_ident!("__TYPE_{index}")
}

fn nested_types<'a>(event: &'a EventInput) -> impl Iterator<Item = (&'a Ident, &'a Type)> {
    let variants = match &event.shape {
        Shape::Struct { .. } => None,
        Shape::Enum { variants, .. } => Some(variants),
    };
    variants.into_iter().flatten().filter_map(|variant| match variant.kind {
        VariantKind::Nested(ty) => Some((variant.ident, ty)),
        VariantKind::Stored(_) => None,
    })
}

/// Constant expressions that do not compile if a nested event shares a stored name with the rest of the enum.
fn disjointness_checks(event: &EventInput) -> Vec<TokenStream> {
    let names: Vec<_> = event.stored_types().flat_map(StoredType::names).collect();
    let nested: Vec<_> = nested_types(event).collect();
    let mut checks = Vec::new();
    for (index, (variant, ty)) in nested.iter().enumerate() {
        let names_of_ty = quote! { <#ty as ::eventcore::NestedEvent>::NAMES };
        let mut check = |other: TokenStream, whose: String| {
            let message = format!(
                "the nested variant `{}::{variant}` has an event type whose stored name or alias {whose} has too; \
                 every stored name must belong to one variant",
                event.ident
            );
            checks.push(quote_spanned! { variant.span().resolved_at(Span::call_site()) =>
                ::core::assert!(::eventcore::EventNames::are_disjoint(&#names_of_ty, &#other), #message)
            });
        };
        if !names.is_empty() {
            check(
                quote! { ::eventcore::EventNames { own: &[#(#names),*], nested: &[] } },
                "another variant".to_owned(),
            );
        }
        for (other, other_ty) in nested.iter().take(index) {
            check(quote! { <#other_ty as ::eventcore::NestedEvent>::NAMES }, format!("the variant `{other}`"));
        }
    }
    checks
}

/// The generics of the impls: a generic event is one for those arguments that make it storable.
fn bounded(event: &EventInput) -> Generics {
    let mut generics = event.generics.clone();
    if generics.params.is_empty() {
        return generics;
    }
    let (ident, (_, ty_generics, _)) = (event.ident, event.generics.split_for_impl());
    let nested: Vec<_> = nested_types(event).map(|(_, ty)| ty.clone()).collect();
    let has_stored = event.stored_types().next().is_some();
    let predicates = &mut generics.make_where_clause().predicates;
    predicates.push(parse_quote! { #ident #ty_generics: ::core::marker::Send + ::core::marker::Sync + 'static });
    if has_stored {
        predicates.push(parse_quote! {
            #ident #ty_generics: ::eventcore::__private::serde::Serialize + ::eventcore::__private::serde::de::DeserializeOwned
        });
    }
    for ty in nested {
        predicates.push(parse_quote! { #ty: ::eventcore::NestedEvent });
    }
    generics
}
