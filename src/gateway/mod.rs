//! HTTP in front of a node: what it says of what there is to call. Pure: a directory in, JSON out.

mod embed;
mod openapi;
mod pages;
mod schemas;

pub use openapi::openapi;
pub use pages::{agents_page, services_page};
