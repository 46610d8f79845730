//! The admin listener of a node or an agent: its settings, and requests of its page.

use dialback::{Admin, AdminAddress, AdminListen, config::AdminConfig};

/// Settings of flag and file; the flag has the address.
pub(crate) fn settings(
    flag: Option<AdminAddress>,
    file: Option<AdminConfig>,
) -> Option<AdminConfig> {
    match (flag, file) {
        (Some(listen), Some(mut settings)) => {
            settings.listen = listen;
            Some(settings)
        }
        (Some(listen), None) => Some(AdminConfig::new(listen)),
        (None, file) => file,
    }
}

pub(crate) fn listen(settings: &AdminConfig) -> AdminListen {
    let listen = AdminListen::new(settings.listen.clone()).callers(settings.callers.clone());
    if settings.peer_labels { listen.peer_labels() } else { listen }
}

/// Resolves when somebody asks for a drain at the page, if the settings allow it.
pub(crate) async fn drain_requested(listener: Option<&Admin>, settings: Option<&AdminConfig>) {
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
        let [one, other]: [AdminAddress; 2] =
            ["127.0.0.1:1", "unix:/a.sock"].map(|text| text.parse().expect("an address"));
        let mut file = AdminConfig::new(one.clone());
        file.drain = true;
        let both = settings(Some(other.clone()), Some(file.clone())).expect("settings");
        assert_eq!((both.listen, both.drain), (other, true));
        assert_eq!(settings(None, Some(file.clone())), Some(file));
        assert_eq!(settings(Some(one.clone()), None), Some(AdminConfig::new(one)));
        assert_eq!(settings(None, None), None);
    }
}
