//! Following the log: history first, then live, without gap or duplicate at the hand-off.

mod lossy;
mod machine;
mod progress;
mod subscription;

pub use lossy::{LossyCapacity, LossyError, LossySubscription, subscribe_lossy};
pub use machine::{FeedEffect, FeedInput, FeedMachine};
pub use progress::{Activity, FollowerEnded, Progress, ProgressClosed};
pub use subscription::{FeedError, FeedItem, StartFrom, Subscription, subscribe};
