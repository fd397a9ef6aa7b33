//! The codecs over every kind that Kubernetes has, and over bytes that nobody should send.

mod hostile;
mod round_trip;
mod sample;
mod speed;
