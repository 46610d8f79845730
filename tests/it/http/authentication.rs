//! Authentication: by a token or as the anonymous caller, never by a claim of the request.

use super::{GatewaySetup, Http, HttpReply, TOKEN, verify_token};
use crate::{
    audit::AuditLog,
    world::{World, soon, spawn, take_turn, until},
};
use dialback::{Gateway, GatewayError, Limits};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";

async fn post(setup: &GatewaySetup, headers: &[(&str, &str)]) -> HttpReply {
    setup.post_with(NOTE, headers, "\"x\"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_token_names_the_caller_and_everything_else_is_refused() {
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tokens(verify_token)).await;
    let good = format!("Bearer {TOKEN}");
    let reply = setup.post_with(NOTE, &[("authorization", &good)], "\"good\"").await;
    assert_eq!((reply.status, reply.text()), (200, "\"good\""));
    assert_eq!(setup.stage.started("good").await.caller().to_string(), "caller/ops");
    let lower = format!("bearer {TOKEN}");
    assert_eq!(post(&setup, &[("authorization", &lower)]).await.status, 200);
    let invalid =
        ["", "Bearer", "Bearer ", "Bearer wrong", TOKEN, "Basic b3BzOm9wcw==", &format!("{good}x")];
    for invalid in invalid {
        let refused = post(&setup, &[("authorization", invalid)]).await;
        refused.expect_error(401, "unauthenticated", "not_executed");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"dialback\""));
    }
    let twice = post(&setup, &[("authorization", &good), ("authorization", &good)]).await;
    twice.expect_error(401, "unauthenticated", "not_executed");
    post(&setup, &[]).await.expect_error(401, "unauthenticated", "not_executed");
    assert_eq!(setup.stage.all_runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_not_treated_as_anonymous() {
    let setup = GatewaySetup::with(
        |node| node,
        |gateway| gateway.tokens(verify_token).anonymous("ops".parse().expect("a name")),
    )
    .await;
    assert_eq!(post(&setup, &[]).await.status, 200);
    post(&setup, &[("authorization", "Bearer wrong")]).await.expect_error(
        401,
        "unauthenticated",
        "not_executed",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_site_requests_and_unknown_host_names_are_refused() {
    let setup = GatewaySetup::with(
        |node| node,
        |gateway| {
            gateway.anonymous("ops".parse().expect("a name")).cors_origin("https://app.example.com")
        },
    )
    .await;
    let rebound = post(&setup, &[("host", "evil.example")]).await;
    rebound.expect_error(401, "unauthenticated", "not_executed");
    let foreign = post(&setup, &[("origin", "https://evil.example")]).await;
    foreign.expect_error(403, "permission_denied", "not_executed");
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    assert_eq!(setup.stage.all_runs(), 0);
    let own = post(&setup, &[("origin", "https://app.example.com")]).await;
    assert_eq!(
        (own.status, own.header("access-control-allow-origin")),
        (200, Some("https://app.example.com"))
    );
    let headers = [
        ("origin", "https://app.example.com"),
        ("access-control-request-headers", "authorization, content-type"),
    ];
    let before = Http::once(setup.at(), "OPTIONS", NOTE, &headers, b"").await;
    assert_eq!(
        (before.status, before.header("access-control-allow-headers")),
        (204, Some("authorization, content-type"))
    );
    let foreign = [
        ("origin", "https://app.example.com.evil.example"),
        ("access-control-request-headers", "x"),
    ];
    let before = Http::once(setup.at(), "OPTIONS", NOTE, &foreign, b"").await;
    assert_eq!((before.status, before.header("access-control-allow-headers")), (403, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_guesses_are_limited_in_the_log_and_do_not_affect_others() {
    let audit_log = AuditLog::default();
    let audit = audit_log.audit();
    let setup =
        GatewaySetup::with(|node| node.audit(audit), |gateway| gateway.tokens(verify_token)).await;
    let mut statuses = Vec::new();
    for n in 0..40 {
        let guess = format!("Bearer guess-{n}");
        let refused = post(&setup, &[("authorization", &guess)]).await;
        assert_eq!(refused.outcome(), "not_executed");
        statuses.push(refused.status);
        if n % 20 == 0 {
            let good = format!("Bearer {TOKEN}");
            assert_eq!(
                post(&setup, &[("authorization", &good)]).await.status,
                200,
                "after {n} guesses"
            );
        }
    }
    assert_eq!(statuses[..10], [401; 10]);
    // A bucket may have regained an attempt or two meanwhile.
    assert!(statuses.iter().filter(|status| **status == 429).count() > 20, "{statuses:?}");
    audit_log
        .wait_for(
            "http_refused",
            &[("address", "127.0.0.1"), ("reason", "the token is not known here")],
        )
        .await;
    assert!(
        audit_log.lines("http_refused").len() <= 40,
        "{} lines",
        audit_log.lines("http_refused").len()
    );
    let text = format!("{:?}", audit_log.lines("http_refused"));
    assert!(!text.contains("guess-"), "a guessed token is logged: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_token_ends_its_calls_and_new_tokens_are_accepted() {
    let is_good = Arc::new(AtomicBool::new(true));
    let is_valid = is_good.clone();
    let verify_token = move |token: &str, now: SystemTime| match is_valid.load(Ordering::SeqCst) {
        true => verify_token(token, now),
        false => Err("revoked".into()),
    };
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tokens(verify_token)).await;
    let good = format!("Bearer {TOKEN}");
    let headers = [
        ("authorization", good.as_str()),
        ("accept", "text/event-stream"),
        ("content-type", "application/json"),
    ];
    let mut http = Http::connect(setup.at()).await;
    http.request("POST", "/v1/agents/warehouse/Ticks/Silent", &headers, b"null").await;
    let head = soon("a head", http.head()).await.expect("a head");
    is_good.store(false, Ordering::SeqCst);
    let last = soon("the stream ends", http.piece(&head)).await.expect("an end");
    let last = String::from_utf8(last).expect("text");
    assert!(last.starts_with("event: error") && last.contains("unauthenticated"), "{last}");
    until("the handler is stopped", || setup.ticks.running() == 0).await;
    post(&setup, &[("authorization", &good)]).await.expect_error(
        401,
        "unauthenticated",
        "not_executed",
    );
    setup.gateway.set_tokens(Some(Arc::new(super::verify_token)));
    assert_eq!(post(&setup, &[("authorization", &good)]).await.status, 200);
    setup.gateway.set_tokens(None);
    post(&setup, &[("authorization", &good)]).await.expect_error(
        401,
        "unauthenticated",
        "not_executed",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_open_to_everyone_or_to_no_one_does_not_start() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let name = || "ops".parse().expect("a name");
    let gateway = |listen: &str| Gateway::builder(&node).listen(listen);
    let proxy = || "10.0.0.0/8".parse().expect("a range");
    let outside = gateway("0.0.0.0:0").tokens(verify_token).start().await;
    assert!(matches!(outside, Err(GatewayError::PlainOutside { .. })), "{outside:?}");
    let anonymous = gateway("0.0.0.0:0").tls().anonymous(name()).start().await;
    assert!(matches!(anonymous, Err(GatewayError::AnonymousOutside { .. })), "{anonymous:?}");
    let proxied = gateway("127.0.0.1:0").anonymous(name()).trusted_proxy(proxy()).start().await;
    assert!(matches!(proxied, Err(GatewayError::AnonymousOutside { .. })), "{proxied:?}");
    let nobody = gateway("127.0.0.1:0").start().await;
    assert!(matches!(nobody, Err(GatewayError::NobodyMayAsk { .. })), "{nobody:?}");
    let taken = gateway("127.0.0.1:0").anonymous(name()).start().await.expect("a gateway");
    let again = gateway(&taken.local_addr().to_string()).anonymous(name()).start().await;
    assert!(matches!(again, Err(GatewayError::Socket { .. })), "{again:?}");
    assert!(gateway("0.0.0.0:0").tokens(verify_token).trusted_proxy(proxy()).start().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_only_a_trusted_proxy_is_accepted_and_names_the_client() {
    let audit_log = AuditLog::default();
    let audit = audit_log.audit();
    let proxied = |range: &str| {
        let range = range.parse().expect("a range");
        move |gateway: dialback::GatewayBuilder| gateway.tokens(verify_token).trusted_proxy(range)
    };
    let setup = GatewaySetup::with(|node| node.audit(audit), proxied("127.0.0.1")).await;
    let forwarded =
        [("authorization", "Bearer wrong"), ("x-forwarded-for", "6.6.6.6, 203.0.113.9")];
    post(&setup, &forwarded).await.expect_error(401, "unauthenticated", "not_executed");
    audit_log.wait_for("http_refused", &[("address", "203.0.113.9")]).await;
    let setup = GatewaySetup::with(|node| node, proxied("192.0.2.0/24")).await;
    let mut http = Http::connect(setup.at()).await;
    http.request("POST", NOTE, &[("authorization", &format!("Bearer {TOKEN}"))], b"\"x\"").await;
    assert!(soon("it is closed", http.reply()).await.is_none());
    assert_eq!(setup.stage.all_runs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_resets_too_many_calls_is_throttled_and_no_other() {
    let limits = Limits { resets_max: 5, ..Limits::default() };
    let everybody = |token: &str, _: SystemTime| {
        format!("caller/{token}").parse().map_err(|_| "no name".to_owned())
    };
    let setup =
        GatewaySetup::with(|node| node.limits(limits), |gateway| gateway.tokens(everybody)).await;
    for n in 0..5 {
        let mut http = Http::connect(setup.at()).await;
        let headers = [("authorization", "Bearer ops"), ("content-type", "application/json")];
        http.request(
            "POST",
            "/v1/agents/warehouse/Stage/Hold",
            &headers,
            format!("\"hold-{n}\"").as_bytes(),
        )
        .await;
        setup.stage.started(&format!("hold-{n}")).await;
        drop(http);
        setup.stage.ended(&format!("hold-{n}")).await;
    }
    soon("the resets are counted", async {
        while post(&setup, &[("authorization", "Bearer ops")]).await.status == 200 {}
    })
    .await;
    let refused = post(&setup, &[("authorization", "Bearer ops")]).await;
    let text = refused.expect_error(429, "resource_exhausted", "not_executed");
    assert!(text.contains("resets_max"), "{text}");
    assert_eq!(post(&setup, &[("authorization", "Bearer clerk")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_bodies_use_its_share_of_memory_is_refused_and_another_is_served() {
    // A share of 4 MiB.
    let limits = Limits { memory_max: Some(16 << 20), ..Limits::default() };
    let everybody = |token: &str, _: SystemTime| {
        format!("caller/{token}").parse().map_err(|_| "no name".to_owned())
    };
    let setup =
        GatewaySetup::with(|node| node.limits(limits), |gateway| gateway.tokens(everybody)).await;
    let note = async |token: &str, bytes: usize| {
        let mut http = Http::connect(setup.at()).await;
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", &authorization[..]), ("content-type", "application/json")];
        let body = format!("\"{}\"", "x".repeat(bytes - 2));
        http.request("POST", NOTE, &headers, body.as_bytes()).await;
        soon("the answer", http.reply()).await.expect("an answer")
    };
    let head = format!(
        "POST {NOTE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ops\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n\"",
        4 << 20
    );
    let (slow, refused) = soon("its memory is counted", async {
        loop {
            // A slow client that has sent little of its declared body. It retries if it was refused
            // for the other one.
            let mut slow = Http::connect(setup.at()).await;
            slow.send(&head).await;
            let reply = note("ops", 1 << 20).await;
            if reply.status != 200 {
                return (slow, reply);
            }
        }
    })
    .await;
    let text = refused.expect_error(429, "resource_exhausted", "not_executed");
    assert!(text.contains("memory_max"), "{text}");
    assert_eq!(note("ops", 1_000).await.status, 200, "small messages are not counted");
    assert_eq!(note("clerk", 1 << 20).await.status, 200);
    drop(slow);
    soon("it is returned", async { while note("ops", 1 << 20).await.status != 200 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes the machine for ten seconds; `make test-long`"]
async fn a_flood_of_token_guesses_does_not_block_other_calls() {
    let _turn = take_turn().await;
    let audit_log = AuditLog::default();
    let audit = audit_log.audit();
    let setup =
        GatewaySetup::with(|node| node.audit(audit), |gateway| gateway.tokens(verify_token)).await;
    let at = setup.at();
    let honest = async |seconds: u64| {
        let (until, mut took) = (Instant::now() + Duration::from_secs(seconds), Vec::new());
        let good = format!("Bearer {TOKEN}");
        while Instant::now() < until {
            let began = Instant::now();
            assert_eq!(post(&setup, &[("authorization", &good)]).await.status, 200);
            took.push(began.elapsed());
        }
        took.sort();
        (took.len(), took[took.len() * 99 / 100])
    };
    let before = honest(3).await;
    let guesses = Arc::<AtomicUsize>::default();
    let flood: Vec<_> = (0..200)
        .map(|_| {
            let guesses = guesses.clone();
            spawn(async move {
                let headers =
                    [("authorization", "Bearer wrong"), ("content-type", "application/json")];
                loop {
                    let refused = Http::once(at, "POST", NOTE, &headers, b"1").await;
                    assert!(matches!(refused.status, 401 | 429), "{refused:?}");
                    guesses.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let during = honest(6).await;
    drop(flood);
    let a_minute = guesses.load(Ordering::Relaxed) * 10;
    println!(
        "calls before: {}, p99 {:?}; during {a_minute} guesses a minute: {}, p99 {:?}",
        before.0, before.1, during.0, during.1
    );
    assert!(during.1 < Duration::from_millis(500), "p99 {:?}", during.1);
    assert!(audit_log.lines("http_refused").len() <= 40);
}
