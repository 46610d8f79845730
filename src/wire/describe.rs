//! Limits on descriptions and schemas of services and methods.

use super::{CallKind, Control, MethodInfo, Register, ServiceInfo, WireError};
use crate::limits::{DESCRIPTION_BYTES_MAX, SCHEMA_BYTES_MAX};

/// Method name that stands for every method of a service, where they are not known.
pub const ANY_METHOD: &str = "*";

impl MethodInfo {
    /// Returns `true` if it stands for every method of its service; their names are unknown.
    pub fn is_any(&self) -> bool {
        self.name == ANY_METHOD
    }

    /// Creates a method without a description.
    pub fn new(name: impl Into<String>, kind: CallKind) -> Self {
        let [description, request_schema, reply_schema] = [(); 3].map(|()| String::new());
        Self { name: name.into(), kind, description, request_schema, reply_schema }
    }
}

impl ServiceInfo {
    /// Creates a service without a description.
    pub fn new(name: impl Into<String>, methods: Vec<MethodInfo>) -> Self {
        Self { name: name.into(), methods, description: String::new() }
    }

    /// Error text of the first description or schema over its limit.
    pub(crate) fn too_long(&self) -> Option<String> {
        let own = (&self.description, DESCRIPTION_BYTES_MAX, "description", None);
        let of_methods = self.methods.iter().flat_map(|method| {
            let name = Some(method.name.as_str());
            [
                (&method.description, DESCRIPTION_BYTES_MAX, "description", name),
                (&method.request_schema, SCHEMA_BYTES_MAX, "request schema", name),
                (&method.reply_schema, SCHEMA_BYTES_MAX, "reply schema", name),
            ]
        });
        let mut all = std::iter::once(own).chain(of_methods);
        let (text, most, what, method) = all.find(|(text, most, ..)| text.len() > *most)?;
        let of = method.map_or_else(|| self.name.clone(), |name| format!("{}/{name}", self.name));
        Some(format!("the {what} of {of} has {} bytes; {most} are the most", text.len()))
    }
}

/// Checks that these services fit one registration.
pub(crate) fn expect_registrable(services: &[ServiceInfo]) -> Result<(), WireError> {
    let register = Register { generation: u64::MAX, services: services.to_vec() };
    Control::Register(register).encode().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl Fn(&mut ServiceInfo)) -> Option<String> {
        let mut service = ServiceInfo::new("S", vec![MethodInfo::new("A", CallKind::Unary)]);
        change(&mut service);
        service.too_long()
    }

    #[test]
    fn every_text_has_its_limit_and_one_byte_more_is_named() {
        let (text, schema) = ("x".repeat(DESCRIPTION_BYTES_MAX), " ".repeat(SCHEMA_BYTES_MAX));
        assert_eq!(with(|service| service.description = text.clone()), None);
        assert_eq!(with(|service| service.methods[0].description = text.clone()), None);
        assert_eq!(with(|service| service.methods[0].request_schema = schema.clone()), None);
        assert_eq!(with(|service| service.methods[0].reply_schema = schema.clone()), None);
        let (text, schema) = (text + "x", schema + " ");
        let error = with(|service| service.description = text.clone()).expect("too long");
        assert_eq!(error, "the description of S has 1025 bytes; 1024 are the most");
        let error = with(|service| service.methods[0].description = text.clone());
        assert!(error.is_some_and(|error| error.starts_with("the description of S/A has 1025")));
        let error = with(|service| service.methods[0].request_schema = schema.clone());
        assert!(error.is_some_and(|error| error.starts_with("the request schema of S/A has 4097")));
        let error = with(|service| service.methods[0].reply_schema = schema.clone());
        assert!(error.is_some_and(|error| error.starts_with("the reply schema of S/A has 4097")));
    }

    #[test]
    fn services_that_fit_a_registration_pass_and_more_do_not() {
        let services = |count: usize| {
            let mut method = MethodInfo::new("A", CallKind::Unary);
            method.request_schema = " ".repeat(SCHEMA_BYTES_MAX);
            vec![ServiceInfo::new("S", vec![method; count])]
        };
        assert!(expect_registrable(&services(63)).is_ok());
        let error = expect_registrable(&services(64)).expect_err("too large").to_string();
        assert!(error.contains("262144"), "{error}");
    }
}
