//! The picture of an evaluation: a forecast against what came, and chances against what happened.

use std::path::{Path, PathBuf};

use model::evaluate::{Drawn, Report};
use model::score::Bin;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Pixels.
const SIZE: (u32, u32) = (1200, 900);
const UPPER: i32 = 480;
/// Points of the series that are drawn, the newest: more are a smear.
const POINTS: usize = 400;

const TRUTH: RGBColor = RGBColor(120, 120, 120);
const FORECAST: RGBColor = RGBColor(200, 60, 30);
const MIX: RGBColor = RGBColor(20, 90, 170);
const LSTM: RGBColor = RGBColor(220, 150, 30);

/// The picture can't be drawn.
#[derive(Debug, thiserror::Error)]
#[error(
    "draw {path}: {why}; is the directory there, and may it be written?",
    path = path.display()
)]
pub struct Error {
    path: PathBuf,
    why: String,
}

/// Draws `report` into an SVG file.
pub fn draw(path: &Path, report: &Report) -> Result<(), Error> {
    let mut text = String::new();
    let drawn = draw_into(&mut text, report).map_err(|error| error.to_string());
    let written = drawn.and_then(|()| {
        let written = std::fs::write(path, &text);
        written.map_err(|error| error.to_string())
    });
    written.map_err(|why| Error {
        path: path.to_owned(),
        why,
    })
}

type Failure = Box<dyn std::error::Error>;

fn draw_into(text: &mut String, report: &Report) -> Result<(), Failure> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(UPPER);
    series(&above, &report.drawn)?;
    reliability(&below, report)?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn series(area: &Area<'_>, drawn: &Drawn) -> Result<(), Failure> {
    let begin = drawn.points.len().saturating_sub(POINTS);
    let points = &drawn.points[begin..];
    let hours = |time: i64| (time - points.first().map_or(0, |first| first.0)) as f64 / 3600.0;
    let both = points.iter().flat_map(|(_, truth, said)| [*truth, *said]);
    let both = both.filter(|value| value.is_finite());
    let (low, high) = both.fold((f32::MAX, f32::MIN), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let (low, high) = if low < high {
        (low, high)
    } else {
        (low.min(0.0), low.max(0.0) + 1.0)
    };
    let end = points.last().map_or(1.0, |last| hours(last.0).max(1.0));
    let caption = format!("{}: what was foretold, and what came", drawn.name);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end, low..high)?;
    chart
        .configure_mesh()
        .x_desc("hours")
        .y_desc("value")
        .light_line_style(WHITE)
        .draw()?;
    let truth = points.iter().map(|(time, truth, _)| (hours(*time), *truth));
    let truth = truth.filter(|(_, value)| value.is_finite());
    let said = points.iter().map(|(time, _, said)| (hours(*time), *said));
    chart
        .draw_series(LineSeries::new(truth, &TRUTH))?
        .label("came")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], TRUTH));
    chart
        .draw_series(LineSeries::new(said, &FORECAST))?
        .label("foretold")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], FORECAST));
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(TRUTH)
        .draw()?;
    Ok(())
}

fn reliability(area: &Area<'_>, report: &Report) -> Result<(), Failure> {
    let bins_of = |name: &str| -> Vec<Bin> {
        let skills = report.skills.iter().find(|skills| skills.name == name);
        let chances = skills.and_then(|skills| skills.chances.first());
        chances
            .map(|chances| chances.reliability())
            .unwrap_or_default()
    };
    let within = report.within.first().map_or(0, |seconds| *seconds);
    let caption = format!(
        "chances within {}: of what was said to be so likely, this much happened",
        super::eval::duration(within)
    );
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("said")
        .y_desc("happened")
        .light_line_style(WHITE)
        .draw()?;
    chart
        .draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], &TRUTH))?
        .label("perfect")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], TRUTH));
    for (name, colour) in [("lstm", LSTM), ("mix", MIX)] {
        let bins = bins_of(name);
        let points = || bins.iter().map(|bin| (bin.said, bin.happened));
        chart.draw_series(LineSeries::new(points(), &colour))?;
        chart
            .draw_series(points().map(|point| Circle::new(point, 4, colour.filled())))?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 10, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(TRUTH)
        .draw()?;
    Ok(())
}
