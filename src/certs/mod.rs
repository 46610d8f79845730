//! Making certificates.
