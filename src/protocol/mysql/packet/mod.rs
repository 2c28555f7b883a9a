//! One packet, one file: a struct, its decoder, its encoder, and tests with captured bytes.
