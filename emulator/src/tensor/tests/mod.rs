//! Tests of fragments and products.
