//! Tests of the built program with real clients; see `it`.
