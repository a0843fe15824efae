//! Tests of the memory adapter.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod limits;

#[cfg(test)]
use harness::Memory;

eventcore_testing::contract_tests!(Memory);
