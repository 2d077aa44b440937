//! The model: events and counts in lists, and sums over them. Pure.

use std::collections::BTreeMap;

pub const USERS: u8 = 3;

const DAYS: u64 = 5;

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Insert(Event),
    /// Its transaction is open while a run goes by.
    LateCommit(Event),
    Update(usize, i64),
    Delete(usize),
    /// Puts back what was deleted last, as it was.
    Restore,
    Reprice(i64),
    ChangePlan(u8, &'static str),
    Kill(usize, usize),
    Run,
    /// A ledger row: its id, the day of the year, the count.
    Seats(i64, u32, i64),
    /// Bills as of the month after so many, killed at a point before.
    Seal(u32, Option<usize>),
}

#[derive(Debug, Clone, Copy)]
pub struct Event {
    day: u64,
    hour: u64,
    user: u8,
    input_tokens: i64,
    pub output_tokens: i64,
}

const NUMBERS: [&str; 4] = ["10", "200", "3000", "7"];

impl Event {
    pub fn at(&self) -> String {
        format!("2026-03-{:02}T{:02}:00:00.000000Z", self.day, self.hour)
    }

    /// Values of the row beside its id and instant.
    pub fn columns(&self) -> [(&'static str, &'static str); 4] {
        let number = |wanted: i64| NUMBERS.into_iter().find(|text| text.parse() == Ok(wanted)).unwrap();
        let users =
            ["'00000000-0000-4000-8000-000000000000'", "'00000000-0000-4000-8000-000000000001'", "'00000000-0000-4000-8000-000000000002'"];
        [
            ("user_id", users[usize::from(self.user)]),
            ("model_used", "'m'"),
            ("input_tokens", number(self.input_tokens)),
            ("output_tokens", number(self.output_tokens)),
        ]
    }
}

pub fn user(number: u8) -> String {
    format!("'00000000-0000-4000-8000-00000000000{number}'")
}

/// A price book: so many dollars for a million tokens in, twice as much for those out.
pub fn prices(price: i64) -> String {
    format!(
        "[[price]]\nmodel = \"m\"\neffective_from = \"2020-01-01\"\ninput_usd_per_million = \"{price}\"\noutput_usd_per_million = \"{}\"\n",
        price * 2
    )
}

/// Noon of a day of 2026, but for each month's first: its midnight, at which a count replaces the one before.
pub fn ledger_instant(day: u32) -> String {
    let (month, day) = (day / 28 + 1, day % 28 + 1);
    format!("2026-{month:02}-{day:02}T{:02}:00:00.000000Z", if day == 1 { 0 } else { 12 })
}

#[derive(Debug)]
pub struct World {
    random: u64,
    pub events: Vec<(String, Event)>,
    /// Each with the number by which a run knows that it has seen it.
    pub deleted: Vec<(String, Event, String)>,
    pub price: i64,
    pub plans: BTreeMap<u8, &'static str>,
    /// Day, id, seats.
    pub ledger: Vec<(u32, i64, i64)>,
    months: u32,
    next_id: i64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            events: Vec::new(),
            deleted: Vec::new(),
            price: 1,
            plans: BTreeMap::new(),
            ledger: Vec::new(),
            months: 1,
            next_id: 0,
        }
    }

    /// xorshift64*: enough to choose deeds by.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn index(&mut self, below: u64) -> usize {
        usize::try_from(self.draw(below)).unwrap()
    }

    fn number(&mut self) -> i64 {
        NUMBERS[self.index(4)].parse().unwrap()
    }

    fn event(&mut self) -> Event {
        let user = u8::try_from(self.draw(USERS.into())).unwrap();
        Event { day: self.draw(DAYS) + 1, hour: self.draw(24), user, input_tokens: self.number(), output_tokens: self.number() }
    }

    pub fn next(&mut self) -> Deed {
        match self.draw(24) {
            0..=5 => Deed::Insert(self.event()),
            6 => Deed::LateCommit(self.event()),
            7..=8 => Deed::Update(self.index(1_000), self.number()),
            9..=10 => Deed::Delete(self.index(1_000)),
            11..=12 => Deed::Restore,
            13 => Deed::Reprice(i64::try_from(self.draw(5)).unwrap() + 1),
            14 => Deed::ChangePlan(u8::try_from(self.draw(USERS.into())).unwrap(), ["free", "pro"][self.index(2)]),
            15..=16 => Deed::Kill(self.index(1_000), self.index(2) + 1),
            17..=18 => Deed::Run,
            19..=21 => {
                self.next_id += 1;
                let day = u32::try_from(self.draw(28 * 6)).unwrap();
                Deed::Seats(self.next_id, day, i64::try_from(self.draw(40)).unwrap())
            }
            _ => {
                self.months = (self.months + u32::from(self.draw(2) == 0)).min(6);
                let point = self.index(12);
                Deed::Seal(self.months, (point < 6).then_some(point))
            }
        }
    }

    pub fn pick(&mut self, index: usize) -> Option<(&str, &mut Event)> {
        let count = self.events.len();
        let (id, event) = self.events.get_mut(index % count.max(1))?;
        Some((id, event))
    }

    /// Requests, tokens, nano-USD by day and user.
    fn sums(&self) -> BTreeMap<(u64, u8), (i64, i64, i64)> {
        let mut sums = BTreeMap::new();
        for (_, event) in &self.events {
            let sum: &mut (i64, i64, i64) = sums.entry((event.day, event.user)).or_default();
            sum.0 += 1;
            sum.1 += event.input_tokens + event.output_tokens;
            sum.2 += (event.input_tokens + 2 * event.output_tokens) * self.price * 1_000;
        }
        sums
    }

    pub fn daily(&self) -> Vec<String> {
        let sums = self.sums().into_iter();
        sums.map(|((day, user), (requests, tokens, nanos))| {
            format!("2026-03-{day:02}|00000000-0000-4000-8000-00000000000{user}|{requests}|{tokens}|{nanos}")
        })
        .collect()
    }

    pub fn monthly(&self) -> Vec<String> {
        let mut months: BTreeMap<u8, (i64, i64, i64)> = BTreeMap::new();
        for ((_, user), sum) in self.sums() {
            let month = months.entry(user).or_default();
            *month = (month.0 + sum.0, month.1 + sum.1, month.2 + sum.2);
        }
        let months = months.into_iter();
        months.map(|(user, sum)| format!("00000000-0000-4000-8000-00000000000{user}|{}|{}|{}", sum.0, sum.1, sum.2)).collect()
    }

    /// Everyone has an account.
    pub fn plan_names(&self) -> Vec<String> {
        let name = |user: u8| self.plans.get(&user).copied().unwrap_or("free");
        (0..USERS).map(|user| format!("00000000-0000-4000-8000-00000000000{user}|{}", name(user))).collect()
    }

    /// The peak of each month as of the 10th of the one after the first `months`.
    pub fn peaks(&self, months: u32) -> Vec<String> {
        let mut rows = self.ledger.clone();
        rows.sort_unstable();
        let as_of = months * 28 + 9;
        rows.retain(|(day, _, _)| *day < as_of);
        let peak = |month: u32| {
            let start = (month - 1) * 28;
            let carried = rows.iter().rev().find(|(day, _, _)| *day < start).map(|(_, _, seats)| *seats);
            let is_replaced = rows.iter().any(|(day, _, _)| *day == start);
            let inside = rows.iter().filter(|(day, _, _)| (start..start + 28).contains(day)).map(|(_, _, seats)| *seats);
            inside.chain(carried.filter(|_| !is_replaced)).max().unwrap_or(0)
        };
        (1..=months + 1).map(|month| format!("2026-{month:02}|{}", peak(month))).collect()
    }
}
