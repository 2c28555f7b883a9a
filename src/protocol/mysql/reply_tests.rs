//! Answers of real servers and generated ones, followed to their end.

use super::*;
