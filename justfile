# Shorthands; `just` lists them.

_default:
    @just --list

# All tests; arguments go to `cargo test`
test *ARGS:
    scripts/test {{ARGS}}

# Everything that has to hold before a change is merged
ci:
    .ci/run

# Format all code
fmt:
    cargo fmt --all

# Lints, warnings are errors
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The documentation, opened in a browser
doc:
    cargo doc --workspace --all-features --no-deps --open

# The bank example; arguments go to it, for example `just bank balances`
bank *ARGS:
    cargo run --release -p eventcore-examples --bin bank -- {{ARGS}}

# Speed on memory, SQLite and PostgreSQL, each beside its limit; arguments go to the benchmark program
bench *ARGS:
    scripts/bench {{ARGS}}

# What the parts without I/O cost
bench-pure *ARGS:
    cargo bench -p eventcore --bench pure {{ARGS}}

# A command with a throw-away PostgreSQL server in DATABASE_URL
with-postgres +COMMAND:
    scripts/with-postgres {{COMMAND}}
