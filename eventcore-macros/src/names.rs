//! Stored names, checked at compile time by the rule that `EventType::new` has at run time.

use syn::LitStr;

/// The longest name, in characters: the core's limit.
const MAX_NAME_CHARS: usize = 255;

/// The text of `literal` if it is a valid name or part of one. `what` names it in the error.
pub(crate) fn checked(what: &str, literal: &LitStr) -> syn::Result<String> {
    let text = literal.value();
    check(what, &text).map_err(|problem| syn::Error::new(literal.span(), problem))?;
    Ok(text)
}

/// Why `text` is no valid name.
pub(crate) fn check(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(format!("{what} holds the control character {control:?}"));
    }
    if text.trim().len() != text.len() {
        return Err(format!("{what} begins or ends with whitespace: {text:?}"));
    }
    let length = text.chars().count();
    if length > MAX_NAME_CHARS {
        return Err(format!("{what} has {length} characters, the limit is {MAX_NAME_CHARS}"));
    }
    Ok(())
}

/// Collects errors, so that the user sees all of them at once.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    /// Keeps `error` for later.
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// The value of `result`, or its error kept for later.
    pub(crate) fn ok<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// `value`, unless there were errors.
    pub(crate) fn finish<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}
