//! Credential of a request that is passed on, beside one that is meant for the upstream.

use super::{
    super::{
        GatewayRequest, GatewayState,
        authentication::{AuthContext, AuthenticatedCaller},
        response::Refusal,
        site::ForwardKind,
    },
    ProxyRoute,
    request_head::OWN_AUTHORIZATION,
};
use crate::httpd::{client_address, names_loopback};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

impl GatewayState {
    /// Authenticates a request. `true` if `Authorization` was dialback's, and not the upstream's.
    ///
    /// In this order: `Dialback-Authorization`, a certificate, `Authorization` unless the site is
    /// public, and the anonymous caller.
    pub(super) fn authenticate_for(
        &self,
        route: &ProxyRoute,
        request: &GatewayRequest,
    ) -> Result<(AuthenticatedCaller, bool), Refusal> {
        let headers = &request.head.headers;
        let public = route.site.as_ref().and_then(|site| site.public.as_ref());
        let has_certificate = request.peer.shown.is_some();
        let (shown, uses_authorization) = match headers.get(OWN_AUTHORIZATION) {
            Some(own) => (Some(own.clone()), false),
            None if has_certificate || public.is_some() => (None, false),
            None => (headers.get(header::AUTHORIZATION).map(bearer), true),
        };
        let mut shown_headers = HeaderMap::new();
        if let Some(shown) = shown {
            shown_headers.insert(header::AUTHORIZATION, shown);
        }
        let is_local = names_loopback(&request.head.uri, headers);
        let context = match (public, &route.site) {
            (Some(public), _) => AuthContext { anonymous: Some(public), ..self.auth_context(true) },
            // The anonymous caller of the gateway is for its API.
            (None, Some(_)) => AuthContext { anonymous: None, ..self.auth_context(false) },
            (None, None) => self.auth_context(is_local),
        };
        let from = request.peer.address.ip();
        let from = client_address(headers, from, &self.proxies).to_canonical();
        let observer = self.ingress.observer();
        let peer = (&request.peer, from);
        let caller = self.authenticator.authenticate(&shown_headers, peer, &context, observer);
        let caller = caller.map_err(|refusal| {
            let challenge = match route.forward.kind {
                // Alone: registries' clients take a Bearer challenge for OAuth.
                ForwardKind::Http => "Basic realm=\"dialback\", charset=\"UTF-8\"",
                ForwardKind::Mcp => "Bearer realm=\"dialback\"",
            };
            let challenge = HeaderValue::from_static(challenge);
            refusal.only_header(header::WWW_AUTHENTICATE, challenge)
        })?;
        Ok((caller, uses_authorization))
    }
}

/// A token as the password of `Basic`, for programs and browsers that know nothing else.
fn bearer(authorization: &HeaderValue) -> HeaderValue {
    let token = authorization.to_str().ok().and_then(|text| {
        let (scheme, encoded) = text.split_once(' ')?;
        let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()));
        let decoded = String::from_utf8(decoded?.ok()?).ok()?;
        let (_, token) = decoded.split_once(':')?;
        HeaderValue::try_from(format!("Bearer {token}")).ok()
    });
    token.unwrap_or_else(|| authorization.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_basic_is_a_token() {
        for (shown, expected) in [
            ("Basic dXNlcjp0b2tlbg==", "Bearer token"),
            ("basic OnRva2VuOng=", "Bearer token:x"),
            ("Bearer token", "Bearer token"),
            ("Basic !", "Basic !"),
            ("Basic dXNlcg==", "Basic dXNlcg=="),
        ] {
            assert_eq!(bearer(&HeaderValue::from_static(shown)), expected);
        }
    }
}
