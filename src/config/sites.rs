//! `[[site]]` of a node's file: host names of the gateway that lead to forwards of agents.

use super::{
    setting::SettingTable,
    shared::{list_certificate, read_certificate},
    table::Table,
    value::{flag, text},
};
use crate::{
    gateway::SiteHost,
    name::{Name, NameError},
};
use std::{fmt, path::PathBuf, str::FromStr};

/// One `[[site]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteFile {
    /// The host name that requests name.
    pub host: SiteHost,
    /// The agent; `None` is any that hosts the forward and may do so by `[[host]]`.
    pub agent: Option<Name>,
    /// The forward.
    pub forward: SiteForward,
    /// The caller of requests without a credential, if the site is open to everybody.
    pub public: Option<Name>,
    /// Certificate and key for this host.
    pub certificate: Option<[PathBuf; 2]>,
}

/// The forward behind a site.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SiteForward {
    /// `http:NAME`.
    Http(Name),
    /// `mcp:NAME`.
    Mcp(Name),
}

impl fmt::Display for SiteForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(name) => write!(f, "http:{name}"),
            Self::Mcp(name) => write!(f, "mcp:{name}"),
        }
    }
}

impl FromStr for SiteForward {
    type Err = NameError;

    /// `http:NAME` or `mcp:NAME`; a name alone is one of `http`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("mcp:") {
            Some(name) => name.parse().map(Self::Mcp),
            None => text.strip_prefix("http:").unwrap_or(text).parse().map(Self::Http),
        }
    }
}

/// Reads `[[site]]`. Sites with a fault are left out; the fault refuses the file.
pub(super) fn read_sites(file: &mut Table<'_>) -> Vec<SiteFile> {
    let mut sites: Vec<SiteFile> = Vec::new();
    for mut table in file.tables("site", "[[site]]") {
        let read = read_site(&mut table);
        if let Some(site) = read {
            if sites.iter().any(|other| other.host == site.host) {
                table.fault("host", format!("`host`: duplicate [[site]] {}", site.host));
            }
            sites.push(site);
        }
        table.finish();
    }
    sites
}

/// Lists one `[[site]]`.
pub(super) fn list_site(site: &SiteFile) -> SettingTable {
    let SiteFile { host, agent, forward, public, certificate } = site;
    let of_any = agent.is_none().then_some(forward);
    let [http, mcp] = match forward {
        _ if agent.is_none() => [None, None],
        SiteForward::Http(name) => [Some(name), None],
        SiteForward::Mcp(name) => [None, Some(name)],
    };
    let table = SettingTable::one_of("site")
        .set_text("host", Some(host))
        .set_text("agent", agent.as_ref())
        .set_text("service", of_any)
        .set_text("http", http)
        .set_text("mcp", mcp)
        .set_text("anonymous", public.as_ref())
        .set_flag("public", public.is_some());
    list_certificate(table, certificate.as_ref())
}

fn read_site(table: &mut Table<'_>) -> Option<SiteFile> {
    let host = table.required("host", "grafana.example.com");
    let agent = table.optional("agent", text("warehouse"));
    let service = table.optional("service", text("http:grafana"));
    let http = table.optional("http", text("grafana")).map(SiteForward::Http);
    let mcp = table.optional("mcp", text("jira")).map(SiteForward::Mcp);
    let anonymous = table.optional("anonymous", text("everybody"));
    let is_public = table.optional("public", flag).unwrap_or(false);
    let certificate = read_certificate(table);
    if let (Some(http), Some(_)) = (&http, &mcp) {
        table.fault("mcp", format!("`mcp`: the site leads to {http}; remove one of them"));
    }
    let forward = forward_of(table, agent.is_some(), service, http.or(mcp));
    match (&anonymous, is_public) {
        (Some(name), false) => table.fault(
            "anonymous",
            format!("`anonymous`: opens the site to everybody as caller/{name}; add `public = true` if that is intended, or remove the key"),
        ),
        (None, true) => table.fault(
            "public",
            "`public`: needs the name of the caller of such requests; add a line as anonymous = \"everybody\"".into(),
        ),
        _ => {}
    }
    Some(SiteFile { host: host?, agent, forward: forward?, public: anonymous, certificate })
}

/// The forward of a site: of one agent, or of any that may host it.
fn forward_of(
    table: &Table<'_>,
    has_agent: bool,
    service: Option<SiteForward>,
    named: Option<SiteForward>,
) -> Option<SiteForward> {
    match (has_agent, service, named) {
        (true, Some(_), _) => {
            let text = "`service`: is for a site of any agent; remove it, or remove `agent`";
            table.fault("service", text.into());
            None
        }
        (true, None, named @ Some(_)) => named,
        (false, Some(service), named) if named.as_ref().is_none_or(|named| *named == service) => {
            Some(service)
        }
        (false, Some(service), Some(named)) => {
            let text = format!("`service`: {service} differs from {named}; remove one of them");
            table.fault("service", text);
            None
        }
        (true, None, None) => {
            let text = "`http`: is missing; add a line as http = \"grafana\", or mcp = \"jira\"";
            table.fault("host", text.into());
            None
        }
        (false, ..) => {
            let text = "`agent`: is missing; add a line as agent = \"warehouse\", or service = \"http:grafana\" for any agent that may host it";
            table.fault("host", text.into());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::NodeConfig;

    const SITE: &str = "[[site]]\nhost = 'web.example'\nagent = 'warehouse'\nhttp = 'web'\n";

    fn faults(text: &str) -> String {
        NodeConfig::parse(text, "f").expect_err("a fault").to_string()
    }

    #[test]
    fn a_site_leads_to_a_forward_of_one_agent_or_of_any() {
        let read = |text: &str| {
            let site = NodeConfig::parse(text, "f").expect("a config").sites.remove(0);
            (site.agent.map(|agent| agent.to_string()), site.forward.to_string())
        };
        assert_eq!(read(SITE), (Some("warehouse".into()), "http:web".into()));
        for service in ["service = 'http:web'", "service = 'web'", "service = 'web'\nhttp = 'web'"]
        {
            let text = format!("[[site]]\nhost = 'web.example'\n{service}\n");
            assert_eq!(read(&text), (None, "http:web".into()), "{service}");
        }
        assert_eq!(read(&SITE.replace("http =", "mcp =")).1, "mcp:web");
        let any = "[[site]]\nhost = 'web.example'\nservice = 'mcp:web'\n";
        assert_eq!(read(any), (None, "mcp:web".into()));
        for (text, fault) in [
            (format!("{SITE}mcp = 'jira'\n"), "f:5: `mcp`: the site leads to http:web"),
            (SITE.replace("agent = 'warehouse'\n", ""), "`agent`: is missing"),
            (SITE.replace("http = 'web'\n", ""), "`http`: is missing"),
            (format!("{SITE}service = 'http:web'\n"), "f:5: `service`: is for a site of any agent"),
            (
                SITE.replace("agent = 'warehouse'", "service = 'api'"),
                "f:3: `service`: http:api differs from http:web",
            ),
            (SITE.replace("web.example", "Web.example"), "f:2: `host`: "),
            (SITE.replace("web.example", "web.example:80"), "has a port"),
            (SITE.repeat(2), "f:6: `host`: duplicate [[site]] web.example"),
        ] {
            assert!(faults(&text).contains(fault), "{fault}: {}", faults(&text));
        }
    }

    #[test]
    fn a_public_site_says_so_and_names_its_caller() {
        let text = format!("{SITE}anonymous = 'everybody'\npublic = true\n");
        let site = NodeConfig::parse(&text, "f").expect("a config").sites.remove(0);
        assert_eq!(site.public.map(|name| name.to_string()), Some("everybody".into()));
        let text = faults(&format!("{SITE}anonymous = 'everybody'\n"));
        assert!(text.contains("f:5: `anonymous`: opens the site to everybody"), "{text}");
        let text = faults(&format!("{SITE}public = true\n"));
        assert!(text.contains("f:5: `public`: needs the name"), "{text}");
    }

    #[test]
    fn a_certificate_of_a_site_has_its_key() {
        let text = faults(&format!("{SITE}cert = 'web.pem'\n"));
        assert!(text.contains("cert and key go together"), "{text}");
    }
}
