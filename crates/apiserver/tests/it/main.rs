//! The API through the real pipeline.

mod basics;
