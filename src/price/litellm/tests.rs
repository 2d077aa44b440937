//! What of LiteLLM's map becomes a price.

use super::PriceMap;
use crate::price::{PriceKey, file};

const MAP: &str = r#"{
    "sample_spec": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
    "m": {
        "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 3.125e-07,
        "input_cost_per_token_batches": 6.25e-07, "output_cost_per_token_batches": 5e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06, "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "cache_read_input_token_cost_above_200k_tokens": 6.25e-07, "input_cost_per_token_cache_hit": 1e-07,
        "search_context_cost_per_query": {"search_context_size_low": 0.01}, "litellm_provider": "p", "mode": "chat"
    },
    "sized": {"tiered_pricing": [
        {"range": [0, 256000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
        {"range": [2.56e5, 1e6], "input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06}
    ]},
    "embeds": {"mode": "embedding", "input_cost_per_token": 2e-08},
    "noisy": {"input_cost_per_token": 9.999990000000002e-06, "output_cost_per_token": 0},
    "ranks": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "input_cost_per_query": 0.002},
    "local": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
    "drawn": {"mode": "image_generation", "output_cost_per_image": 0.04},
    "free?": {"mode": "chat"},
    "any/*": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06}
}"#;

#[test]
fn a_map_of_litellm_becomes_prices_and_says_what_it_cannot_express() {
    let map = PriceMap::parse(MAP, "map.json").unwrap();
    let of = |model: &str, tier: Option<&str>, above: Option<i64>| {
        let key = PriceKey { model: model.to_owned(), service_tier: tier.map(str::to_owned), above_input_tokens: above };
        let rates = map.prices.get(&key)?;
        Some([rates.input, rates.cached_input, rates.cache_write, rates.output, rates.reasoning].map(file::usd).join(" "))
    };
    assert_eq!(of("m", None, None).unwrap(), "1.25 0.3125 1.25 10 10");
    // What the map does not say of the tier, it says of all tiers.
    assert_eq!(of("m", Some("batch"), None).unwrap(), "0.625 0.3125 0.625 5 5");
    assert_eq!(of("m", None, Some(200_000)).unwrap(), "2.5 0.625 2.5 15 15");
    assert_eq!(of("sized", None, None).unwrap(), "0.05 0.05 0.05 0.4 0.4");
    assert_eq!(of("sized", None, Some(256_000)).unwrap(), "0.25 0.25 0.25 2 2");
    assert_eq!(of("embeds", None, None).unwrap(), "0.02 0.02 0.02 0 0");
    assert_eq!(of("noisy", None, None).unwrap(), "9.99999 9.99999 9.99999 0 0");
    assert_eq!((map.entry_count, map.prices.len(), map.rounded_count, map.partial_count), (9, 8, 1, 1));
    let unused: Vec<&str> = map.unused_fields.keys().map(String::as_str).collect();
    assert_eq!(unused, ["input_cost_per_token_cache_hit", "search_context_cost_per_query"]);
    let left_out: Vec<(&str, u64)> = map.left_out.into_iter().collect();
    assert_eq!(left_out, [("it has no price", 1), ("it has no price of tokens in and out", 2), ("its name is no model's", 1)]);
    for (text, expected) in [
        ("[]", "not LiteLLM's map"),
        (r#"{"m": {"input_cost_per_token": "dear"}}"#, "`m`"),
        (r#"{"m": {"input_cost_per_token": -1e-6, "output_cost_per_token": 0}}"#, "not negative"),
    ] {
        let error = format!("{:#}", PriceMap::parse(text, "map.json").unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}
