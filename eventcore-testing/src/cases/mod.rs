//! The cases, by what they are about. Their names are the promises.

pub(crate) mod appends;
pub(crate) mod bytes;
pub(crate) mod checkpoints;
pub(crate) mod closing;
pub(crate) mod conflicts;
pub(crate) mod dead_letters;
pub(crate) mod executing;
pub(crate) mod filters;
pub(crate) mod following;
pub(crate) mod histories;
pub(crate) mod instances;
pub(crate) mod leadership;
pub(crate) mod limits;
pub(crate) mod parking;
pub(crate) mod parking_in_pages;
pub(crate) mod partitioning;
pub(crate) mod projecting;
pub(crate) mod reading;
pub(crate) mod receipts;
pub(crate) mod reopening;
pub(crate) mod snapshots;
pub(crate) mod subscribing;
pub(crate) mod transactional;
pub(crate) mod units_of_work;
pub(crate) mod versions;
