//! Tests of the arithmetic against references that share no code with it.
