//! What a price book gives.

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::book::PriceBook;
use super::*;

fn book(text: &str) -> anyhow::Result<PriceBook> {
    file::parse(text, "prices.toml")
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn nanos(rates: &Rates, tokens: Tokens) -> (i64, i64, i64) {
    let cost = rates.rate(&tokens).unwrap();
    (cost.input.unwrap(), cost.output.unwrap(), cost.total.unwrap())
}

fn in_and_out(input: i64, output: i64) -> Tokens {
    Tokens { input, output, ..Tokens::default() }
}

const TWO_PRICES: &str = r#"
    [[price]]
    model = "m"
    effective_from = 2026-02-01
    input_usd_per_million = "2"
    output_usd_per_million = 4
    [[price]]
    model = "m"
    effective_from = "2026-01-01T00:00:00Z"
    input_usd_per_million = "0.0005"
    output_usd_per_million = "0.0015"
"#;

#[test]
fn the_price_in_force_rates_the_event_exactly() {
    let book = book(TWO_PRICES).unwrap();
    let prices = book.candidates("m", None, None);
    let at = |text| price_at(&prices, instant(text), 1);
    assert_eq!(at("2025-12-31T23:59:59.999999Z"), None);
    // 1 token at 0.0005 USD per million is half a nano: half-even gives 0, and the total 1 + 1 tokens gives 2 nanos.
    let january = at("2026-01-31T23:59:59Z").unwrap().rates;
    assert_eq!(nanos(&january, in_and_out(1, 0)), (0, 0, 0));
    assert_eq!(nanos(&january, in_and_out(3, 0)), (2, 0, 2));
    assert_eq!(nanos(&january, in_and_out(1, 1)), (0, 2, 2));
    let february = at("2026-02-01T00:00:00Z").unwrap().rates;
    assert_eq!(nanos(&february, in_and_out(10, 1)).2, 24_000);
    assert_eq!(february.rate(&in_and_out(i64::MAX, i64::MAX)), None);
    assert_eq!(Rates::plain(i64::MAX, i64::MAX).rate(&in_and_out(i64::MAX, i64::MAX)), None);
}

#[test]
fn each_kind_of_token_has_its_rate() {
    let book = book(
        r#"
        [[price]]
        model = "m"
        effective_from = 2026-01-01
        input_usd_per_million = "3"
        cached_input_usd_per_million = "0.30"
        cache_write_usd_per_million = "3.75"
        output_usd_per_million = "15"
        reasoning_usd_per_million = "20"
        [[price]]
        model = "plain"
        effective_from = 2026-01-01
        input_usd_per_million = "3"
        output_usd_per_million = "15"
    "#,
    )
    .unwrap();
    let tokens = Tokens { input: 1_000, cached_input: 600, cache_write: 100, output: 50, reasoning: 20 };
    let of = |model| nanos(&book.candidates(model, None, None)[0].prices[0].rates, tokens);
    // (300 × 3 + 600 × 0.30 + 100 × 3.75) + (30 × 15 + 20 × 20), in millionths of a USD.
    assert_eq!(of("m"), (1_455_000, 850_000, 2_305_000));
    assert_eq!(of("plain"), (3_000_000, 750_000, 3_750_000));
}

const SPECIFIC: &str = r#"
    price = [
        { model = "gpt-4o", effective_from = 2026-01-01, input_usd_per_million = 1, output_usd_per_million = 0 },
        { model = "gpt-4o", above_input_tokens = 200, effective_from = 2026-01-01, input_usd_per_million = 2, output_usd_per_million = 0 },
        { model = "gpt-4o", service_tier = "Batch", effective_from = 2026-01-01, input_usd_per_million = 3, output_usd_per_million = 0 },
        { model = "gpt-4o", provider = "azure", effective_from = 2026-01-01, input_usd_per_million = 4, output_usd_per_million = 0 },
        { model = "groq/gpt-4o", effective_from = 2026-01-01, input_usd_per_million = 5, output_usd_per_million = 0 },
        { model = "gpt-*", effective_from = 2025-01-01, input_usd_per_million = 6, output_usd_per_million = 0 },
        { model = "gpt-4*", effective_from = 2025-06-01, input_usd_per_million = 7, output_usd_per_million = 0 },
        { model = "*", provider = "local", effective_from = 2026-01-01, input_usd_per_million = 8, output_usd_per_million = 0 },
        { model = "groq/*", effective_from = 2026-01-01, input_usd_per_million = 9, output_usd_per_million = 0 },
        { model = "gpt-4o", service_tier = "standard", effective_from = 2027-01-01, input_usd_per_million = 10, output_usd_per_million = 0 },
    ]
"#;

#[test]
fn the_most_specific_price_in_force_counts() {
    let book = book(SPECIFIC).unwrap();
    let of = |model: &str, provider: Option<&str>, tier: Option<&str>, at: &str, input: i64| {
        let price = price_at(&book.candidates(model, provider, tier), instant(&format!("{at}T00:00:00Z")), input)?;
        Some(price.rates.input / money::NANOS_PER_USD)
    };
    for (expected, model, provider, tier, at, input) in [
        (Some(1), "gpt-4o", None, None, "2026-03-01", 200),
        (Some(2), "gpt-4o", None, None, "2026-03-01", 201),
        (Some(3), "gpt-4o", None, Some("batch"), "2026-03-01", 201),
        (Some(3), "gpt-4o", Some("openai"), Some("BATCH"), "2026-03-01", 1),
        (Some(4), "gpt-4o", Some("azure"), Some("batch"), "2026-03-01", 201),
        (Some(5), "gpt-4o", Some("groq"), None, "2026-03-01", 201),
        (Some(5), "groq/gpt-4o", None, None, "2026-03-01", 1),
        (Some(9), "llama", Some("groq"), None, "2026-03-01", 1),
        (Some(9), "groq/llama", None, None, "2026-03-01", 1),
        // Not in force yet: the next specific one.
        (Some(7), "gpt-4o", None, None, "2025-07-01", 300),
        (Some(6), "gpt-4o", None, None, "2025-02-01", 300),
        (Some(6), "gpt-5", None, None, "2026-03-01", 300),
        (Some(8), "llama", Some("local"), None, "2026-03-01", 1),
        (None, "llama", None, None, "2026-03-01", 1),
        (None, "gpt-4o", None, None, "2024-01-01", 1),
        // What names no tier, or one of the names for none, is standard.
        (Some(10), "gpt-4o", None, None, "2027-03-01", 300),
        (Some(10), "gpt-4o", None, Some("default"), "2027-03-01", 300),
        (Some(1), "gpt-4o", None, Some("flex"), "2027-03-01", 1),
    ] {
        assert_eq!(of(model, provider, tier, at, input), expected, "{model} {provider:?} {tier:?} {at} {input}");
    }
}

/// However it is spelled, the latest of a provider's model counts.
#[test]
fn two_spellings_of_a_providers_model_are_one_price() {
    let price = |model: &str, from: &str, usd: u8| {
        format!("[[price]]\n{model}\neffective_from = {from}\ninput_usd_per_million = {usd}\noutput_usd_per_million = 0\n")
    };
    let spelled = ["model = \"o3\"\nprovider = \"azure\"", "model = \"azure/o3\""];
    for (one, other) in [(spelled[0], spelled[1]), (spelled[1], spelled[0])] {
        let book = book(&format!("{}{}", price(one, "2026-01-01", 1), price(other, "2026-06-01", 2))).unwrap();
        for (model, provider) in [("o3", Some("azure")), ("azure/o3", None), ("azure/o3", Some("azure"))] {
            let at = |text| price_at(&book.candidates(model, provider, None), instant(text), 1).unwrap().rates.input / money::NANOS_PER_USD;
            assert_eq!((at("2026-03-01T00:00:00Z"), at("2026-07-01T00:00:00Z")), (1, 2), "{model} {provider:?}");
        }
        assert_eq!(book.of_model("o3").len(), 1);
    }
    let book = book(&price("model = \"*\"\nprovider = \"groq\"", "2026-01-01", 1)).unwrap();
    assert_eq!(book.of_model("llama").len(), 1);
    // A name with a `/` rated only events of that very name before: days are held against what it rates now.
    let slashed = price("model = \"a/b\"", "2026-01-01", 1);
    let plain = price("model = \"m\"", "2026-01-01", 1);
    let digest = |text: &str| self::book(text).unwrap().first_fingerprint(instant("2026-03-04T00:00:00Z"), instant("2026-03-05T00:00:00Z"));
    assert_eq!(digest(&plain).len(), digest(&slashed).len());
    assert_ne!(
        digest(&slashed),
        crate::fingerprint::of([format!("\"a/b\" {} 1000000000 0", instant("2026-03-04T00:00:00Z").timestamp_micros())])
    );
    assert_eq!(
        digest(&plain),
        crate::fingerprint::of([format!("\"m\" {} 1000000000 0", instant("2026-03-04T00:00:00Z").timestamp_micros())])
    );
}

#[test]
fn a_new_price_changes_only_the_windows_it_is_in_force_in() {
    let old = book(TWO_PRICES).unwrap();
    let new = book(&format!(
        "{TWO_PRICES}\n[[price]]\nmodel = \"m\"\neffective_from = 2026-03-05\ninput_usd_per_million = \"9\"\noutput_usd_per_million = \"9\""
    ))
    .unwrap();
    let before = ("2026-03-04T00:00:00Z", "2026-03-05T00:00:00Z");
    let after = ("2026-03-05T00:00:00Z", "2026-03-06T00:00:00Z");
    let across = ("2026-03-04T12:00:00Z", "2026-03-05T12:00:00Z");
    for fingerprint in [PriceBook::fingerprint, PriceBook::first_fingerprint] {
        let day = |book: &PriceBook, (from, to): (&str, &str)| fingerprint(book, instant(from), instant(to));
        assert_eq!(day(&old, before), day(&new, before));
        assert_ne!(day(&old, after), day(&new, after));
        assert_ne!(day(&old, across), day(&new, across));
        // Either of the two prices counts, and so does each of the others.
        for (line, other) in [
            ("per_million = \"2\"", "per_million = \"3\""),
            ("per_million = 4", "per_million = 5"),
            ("per_million = 4", "per_million = 4\ncached_input_usd_per_million = 1"),
            ("per_million = 4", "per_million = 4\ncache_write_usd_per_million = 1"),
            ("per_million = 4", "per_million = 4\nreasoning_usd_per_million = 1"),
            ("per_million = 4", "per_million = 4\nprovider = \"p\""),
            ("per_million = 4", "per_million = 4\nservice_tier = \"t\""),
            ("per_million = 4", "per_million = 4\nabove_input_tokens = 1"),
        ] {
            let new = book(&TWO_PRICES.replacen(line, other, 1)).unwrap();
            assert_ne!(day(&old, after), day(&new, after), "{other}");
        }
    }
    // As it was written when a price was of a model alone: nothing else may make old windows due.
    assert_eq!(old.first_fingerprint(instant(before.0), instant(before.1)), "cfc83161f2fc4ebff80ecac5ae0e3238");
}

#[test]
fn a_bad_price_names_the_entry_and_the_field() {
    let entry = |from: &str, input: &str, more: &str| {
        format!(
            "[[price]]\nmodel = \"m\"\neffective_from = {from}\ninput_usd_per_million = {input}\noutput_usd_per_million = \"1\"\n{more}\n"
        )
    };
    let good = entry("2026-01-01", "1", "");
    for (text, expected) in [
        (entry("2026-01-01", "2.5", ""), "float"),
        (entry("2026-01-01", "\"two\"", ""), "not a decimal number"),
        (entry("2026-01-01", "\"-1\"", ""), "negative"),
        (entry("2026-01-01", "\"1.00000000049\"", ""), "at most nine decimal places"),
        (entry("2026-01-01", "\"12e-10\"", ""), "at most nine decimal places"),
        (entry("\"soon\"", "\"1\"", ""), "neither a date"),
        (entry("2026-01-01", "1", "cached_input_usd_per_million = \"-1\""), "`cached_input_usd_per_million` is negative"),
        (entry("2026-01-01", "1", "above_input_tokens = 0"), "above_input_tokens"),
        (entry("2026-01-01", "1", "above_input_tokens = \"many\""), "above_input_tokens"),
        (entry("2026-01-01", "1", "provider = \" \""), "`provider` is empty"),
        (entry("2026-01-01", "1", "").replace("\"m\"", "\"g*t\""), "stands at its end"),
        (entry("2026-01-01", "1", "").replace("\"m\"", "\"g**\""), "stands at its end"),
    ] {
        let error = format!("{:#}", book(&text).unwrap_err());
        assert!(error.contains("price 1 (`") && error.contains(expected), "{error}");
    }
    for exact in ["\"1.000000001\"", "\"0.00000000100\"", "\"10e-10\"", "\"0.00000000000\"", "\"1e2\"", "\"100\""] {
        book(&entry("2026-01-01", exact, "")).unwrap();
    }
    assert!(book("[[prices]]").is_err());
    // Two that nothing decides between, also under another name.
    for (one, other) in [
        (good.clone(), good.clone()),
        (good.replace("\"m\"", "\"p/m\""), format!("{good}provider = \"p\"\n")),
        (format!("{}provider = \"p\"\n", good.replace("\"m\"", "\"p/m\"")), format!("{good}provider = \"p\"\n")),
        (format!("{good}service_tier = \"Batch\"\n"), format!("{good}service_tier = \"batch\"\n")),
        (format!("{good}service_tier = \"default\"\n"), format!("{good}service_tier = \"standard\"\n")),
    ] {
        let error = format!("{:#}", book(&format!("{one}{other}")).unwrap_err());
        assert!(error.contains("price 2 (`m`)") && error.contains("as specific as price 1"), "{error}");
    }
}

proptest! {
    /// An entry that is written is read as it was, and rates as sums of whole tokens do.
    #[test]
    fn an_entry_is_read_as_it_was_written(
        rates in prop::array::uniform5(0..10_000_000_000_i64),
        tokens in prop::array::uniform5(0..1_000_000_i64),
        model in "[a-z\"\\\\\n é/.:-]{0,8}[a-z][*]?",
        above in prop::option::of(1..1_000_000_i64),
        seconds in prop_oneof![Just(0), 1..86_400_i64],
    ) {
        let [input, cached_input, cache_write, output, reasoning] = rates;
        let rates = Rates { input, cached_input, cache_write, output, reasoning };
        let key = PriceKey { model, service_tier: Some("batch".to_owned()), above_input_tokens: above };
        let price = Price { effective_from: instant("2026-01-01T00:00:00Z") + chrono::TimeDelta::seconds(seconds), rates };
        let book = book(&file::entry(&key, &price)).unwrap();
        prop_assert_eq!(&book.series()[0].key, &key);
        prop_assert_eq!(&book.series()[0].prices, &vec![price]);

        let [plain, cached_input, cache_write, output, reasoning] = tokens;
        let tokens = Tokens { input: plain + cached_input + cache_write, cached_input, cache_write, output: output + reasoning, reasoning };
        let cost = rates.rate(&tokens).unwrap();
        prop_assert_eq!(cost.input.unwrap() + cost.output.unwrap(), cost.total.unwrap());
        let exact: i128 = [(plain, rates.input), (cached_input, rates.cached_input), (cache_write, rates.cache_write), (output, rates.output),
            (reasoning, rates.reasoning)].into_iter().map(|(tokens, rate)| i128::from(tokens) * i128::from(rate)).sum();
        let off = (i128::from(cost.total.unwrap()) * 1_000_000 - exact).abs();
        prop_assert!(off <= 500_000);
    }
}
