//! Tests of the suite itself: it passes on a plain store and fails on broken ones.

#[cfg(test)]
mod broken;
#[cfg(test)]
mod generators;
#[cfg(test)]
mod model;
#[cfg(test)]
mod scenarios;
