//! Sessions on a site of any agent: their ids name the agent that has them.

use crate::{call::Target, mcp::SESSION, name::Name};
use hyper::{HeaderMap, header::HeaderValue};

/// The target of a request, and the headers with the id as the server knows it. `None`: the session
/// is on no agent that may host the server.
pub(super) fn find_agent(
    target: &Target,
    headers: &mut HeaderMap,
    may_host: impl Fn(&Name) -> bool,
) -> Option<Target> {
    if *target != Target::Service || !headers.contains_key(SESSION) {
        return Some(target.clone());
    }
    let session = headers.get(SESSION)?.to_str().ok()?;
    let (agent, id) = session.split_once('/')?;
    let (agent, id) = (agent.parse().ok().filter(may_host)?, HeaderValue::from_str(id).ok()?);
    headers.insert(SESSION, id);
    Some(Target::Agent(agent))
}

/// Adds the agent to the id of a session.
pub(super) fn add_agent(headers: &mut HeaderMap, agent: &Name) {
    let session = headers.get(SESSION).and_then(|session| session.to_str().ok());
    let named = session.map(|session| HeaderValue::try_from(format!("{agent}/{session}")));
    if let Some(Ok(named)) = named {
        headers.insert(SESSION, named);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(session: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            hyper::header::HeaderName::from_static(SESSION),
            HeaderValue::from_str(session).expect("a value"),
        )])
    }

    #[test]
    fn a_session_goes_back_to_its_agent() {
        let agent: Name = "acme.w-1".parse().expect("a name");
        let mut map = headers("a/b c");
        add_agent(&mut map, &agent);
        assert_eq!(map[SESSION], "acme.w-1/a/b c");
        let target = find_agent(&Target::Service, &mut map, |_| true);
        assert_eq!(
            (target, &map[SESSION]),
            (Some(Target::Agent(agent)), &HeaderValue::from_static("a/b c"))
        );
    }

    #[test]
    fn without_an_agent_in_its_id_a_session_is_nowhere() {
        for bad in ["x", "A/x", "/x", ""] {
            assert_eq!(find_agent(&Target::Service, &mut headers(bad), |_| true), None, "{bad}");
        }
        assert_eq!(
            find_agent(&Target::Service, &mut HeaderMap::new(), |_| true),
            Some(Target::Service)
        );
        // An agent that may not host the server is as one that is not there.
        assert_eq!(find_agent(&Target::Service, &mut headers("w/x"), |_| false), None);
        let named = Target::Agent("w".parse().expect("a name"));
        let mut map = headers("v/x");
        assert_eq!(find_agent(&named, &mut map, |_| false), Some(named));
        assert_eq!(map[SESSION], "v/x");
    }
}
