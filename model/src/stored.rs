//! What was learned, as bytes: to be kept over a restart, and refused if they are not ours.
//!
//! Header: magic, format, version of the inputs, length and CRC-32 of the body. Body: one rkyv
//! archive, opened with checks. Little-endian.

use std::sync::Arc;

use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

use crate::cell::{self, Weights};
use crate::chance::{Calibration, Horizons, Logistic};
use crate::drift::Edges;
use crate::learned::{CHANCE_INPUTS, INPUTS_VERSION, Kind, Learned, Net, Odds, Schema, Values};
use crate::member::{Forest, Goal};
use crate::track::INPUTS;

const MAGIC: [u8; 8] = *b"FSMODEL\n";
const FORMAT: u32 = 1;
const HEADER: usize = 28;

/// Bytes that are not a model, or not one that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("not a model of Foreshadow: it begins otherwise")]
    Foreign,
    #[error("format {found}, and this program knows {FORMAT}")]
    Format { found: u32 },
    #[error(
        "learned from inputs of version {found}, and this program's are of version \
         {INPUTS_VERSION}: train anew"
    )]
    Inputs { found: u32 },
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Edges and shares of each input.
type StoredEdges = (Vec<[f32; 9]>, Vec<[f32; 10]>);

#[derive(Archive, Serialize, Deserialize)]
struct Stored {
    kind: u8,
    step: u32,
    ahead: u64,
    horizons: Vec<u64>,
    base_rate: f32,
    window: (i64, i64),
    examples: u64,
    edges: Option<StoredEdges>,
    values: Option<StoredValues>,
    odds: Option<StoredOdds>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredValues {
    net: StoredNet,
    forest: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredOdds {
    net: StoredNet,
    forests: Vec<Vec<u8>>,
    logistics: Vec<Vec<f32>>,
    /// Scale and shift.
    calibrations: Vec<(f32, f32)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredNet {
    has_gates: bool,
    inputs: u64,
    hidden: u64,
    outputs: u64,
    numbers: [Vec<f32>; 5],
}

impl StoredNet {
    fn of(weights: &Weights) -> StoredNet {
        StoredNet {
            has_gates: weights.kind == cell::Kind::Lstm,
            inputs: weights.inputs as u64,
            hidden: weights.hidden as u64,
            outputs: weights.outputs as u64,
            numbers: [
                weights.of_input.clone(),
                weights.of_state.clone(),
                weights.bias.clone(),
                weights.head.clone(),
                weights.head_bias.clone(),
            ],
        }
    }

    fn net(self, inputs: usize, outputs: usize) -> Result<Net, Refused> {
        let fits = (self.inputs, self.outputs) == (inputs as u64, outputs as u64);
        // So large a layer would have been refused when it was made.
        if !fits || self.hidden > 4_096 {
            return Err(damaged("a network of other inputs or outputs"));
        }
        let [of_input, of_state, bias, head, head_bias] = self.numbers;
        let kind = match self.has_gates {
            true => cell::Kind::Lstm,
            false => cell::Kind::Rnn,
        };
        let hidden = self.hidden as usize;
        Net::new(Weights {
            kind,
            inputs,
            hidden,
            outputs,
            of_input,
            of_state,
            bias,
            head,
            head_bias,
        })
        .map_err(damaged)
    }
}

fn damaged(why: impl std::fmt::Display) -> Refused {
    Refused::Damaged(why.to_string())
}

impl Learned {
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refused> {
        let stored = Stored {
            kind: Kind::ALL
                .iter()
                .position(|kind| *kind == self.kind)
                .unwrap_or(0) as u8,
            step: self.schema.step,
            ahead: self.schema.ahead as u64,
            horizons: self
                .schema
                .horizons
                .bins()
                .iter()
                .map(|bins| *bins as u64)
                .collect(),
            base_rate: self.base_rate,
            window: self.window,
            examples: self.examples,
            edges: self.edges.clone().map(|edges| (edges.edges, edges.shares)),
            values: self.values.as_ref().map(store_values).transpose()?,
            odds: self.odds.as_ref().map(store_odds).transpose()?,
        };
        let body = rkyv::to_bytes::<rancor::Error>(&stored).map_err(damaged)?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(INPUTS_VERSION.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(&body[..]);
        Ok(bytes)
    }

    /// What [`Learned::to_bytes`] wrote; whatever else it is, it is refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Learned, Refused> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Refused::Foreign);
        }
        let header = bytes.get(..HEADER).ok_or_else(|| damaged("cut short"))?;
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        match (number(8), number(12)) {
            (FORMAT, INPUTS_VERSION) => {}
            (FORMAT, found) => return Err(Refused::Inputs { found }),
            (found, _) => return Err(Refused::Format { found }),
        }
        let length = u64::from(number(16)) | u64::from(number(20)) << 32;
        let body = &bytes[HEADER..];
        if body.len() as u64 != length {
            let found = body.len();
            return Err(damaged(format!("{found} bytes instead of {length}")));
        }
        if crc32fast::hash(body) != number(24) {
            return Err(damaged("its checksum is another"));
        }
        // The archive wants to lie at an aligned address.
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(body.len());
        aligned.extend_from_slice(body);
        let stored = rkyv::from_bytes::<Stored, rancor::Error>(&aligned).map_err(damaged)?;
        stored.learned()
    }
}

fn store_values(values: &Values) -> Result<StoredValues, Refused> {
    Ok(StoredValues {
        net: StoredNet::of(&values.net.weights),
        forest: values.forest.to_bytes().map_err(damaged)?,
    })
}

fn store_odds(odds: &Odds) -> Result<StoredOdds, Refused> {
    let forests = odds.forests.iter().map(|forest| forest.to_bytes());
    Ok(StoredOdds {
        net: StoredNet::of(&odds.net.weights),
        forests: forests.collect::<Result<_, _>>().map_err(damaged)?,
        logistics: odds
            .logistics
            .iter()
            .map(|one| one.weights.clone())
            .collect(),
        calibrations: odds
            .calibrations
            .iter()
            .map(|one| (one.scale, one.shift))
            .collect(),
    })
}

impl Stored {
    fn learned(self) -> Result<Learned, Refused> {
        let kind = Kind::ALL.get(usize::from(self.kind)).copied();
        let horizons = Horizons::new(self.horizons.iter().map(|bins| *bins as usize));
        let (Some(kind), Some(horizons)) = (kind, horizons) else {
            return Err(damaged("an unknown kind, or no horizons"));
        };
        let count = horizons.count();
        let values = self.values.map(|values| -> Result<Values, Refused> {
            let forest = Forest::from_bytes(Goal::Value, INPUTS, &values.forest);
            Ok(Values {
                net: values.net.net(INPUTS, 1)?,
                forest: Arc::new(forest.map_err(damaged)?),
            })
        });
        Ok(Learned {
            kind,
            schema: Schema {
                step: self.step,
                ahead: self.ahead as usize,
                horizons,
            },
            values: values.transpose()?,
            odds: self.odds.map(|odds| odds.odds(count)).transpose()?,
            base_rate: self.base_rate,
            window: self.window,
            examples: self.examples,
            edges: self.edges.and_then(|(edges, shares)| {
                let fits = (edges.len(), shares.len()) == (CHANCE_INPUTS, CHANCE_INPUTS);
                fits.then_some(Edges { edges, shares })
            }),
        })
    }
}

impl StoredOdds {
    fn odds(self, count: usize) -> Result<Odds, Refused> {
        let fits = [
            self.forests.len(),
            self.logistics.len(),
            self.calibrations.len(),
        ];
        let wide = self
            .logistics
            .iter()
            .all(|one| one.len() == CHANCE_INPUTS + 1);
        if fits != [count; 3] || !wide {
            return Err(damaged("forecasters of other horizons or inputs"));
        }
        let forests = self
            .forests
            .iter()
            .map(|bytes| Forest::from_bytes(Goal::Odds, CHANCE_INPUTS, bytes).map(Arc::new));
        let logistics = self
            .logistics
            .into_iter()
            .map(|weights| Logistic { weights });
        let calibrations = self.calibrations.into_iter();
        let calibrations = calibrations.map(|(scale, shift)| Calibration { scale, shift });
        Ok(Odds {
            net: self.net.net(CHANCE_INPUTS, count)?,
            forests: forests.collect::<Result<_, _>>().map_err(damaged)?,
            logistics: logistics.collect(),
            calibrations: calibrations.collect(),
        })
    }
}
