//! The admin listener of a node or an agent: its settings, and requests of its page.

use dialback::{Admin, config::AdminConfig};
use std::net::SocketAddr;

/// Settings of flag and file; the flag has the address.
pub(crate) fn settings(flag: Option<SocketAddr>, file: Option<AdminConfig>) -> Option<AdminConfig> {
    let mut settings = file.or_else(|| flag.map(AdminConfig::new))?;
    if let Some(listen) = flag {
        settings.listen = listen;
    }
    Some(settings)
}

/// Resolves when somebody asks for a drain at the page, if the settings allow it.
pub(crate) async fn drain_requested(listener: Option<&Admin>, settings: Option<AdminConfig>) {
    match listener {
        Some(listener) if settings.is_some_and(|settings| settings.drain) => {
            listener.drain_requested().await;
        }
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_has_the_address_and_the_file_the_rest() {
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut file = AdminConfig::new(one);
        file.drain = true;
        let both = settings(Some(other), Some(file)).expect("settings");
        assert_eq!((both.listen, both.drain), (other, true));
        assert_eq!(settings(None, Some(file)), Some(file));
        assert_eq!(settings(Some(one), None), Some(AdminConfig::new(one)));
        assert_eq!(settings(None, None), None);
    }
}
