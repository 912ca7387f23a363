//! Tables, as text for the terminal and as Markdown.

/// A table whose first column is text and whose others are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&text| text.to_owned()).collect()] }
    }

    /// One more row.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Markdown, with columns aligned so that it reads well as it is.
    pub fn markdown(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().map(|row| row.get(column).map_or(0, |c| c.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                text += &if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
            }
            text += "|\n";
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let line = "-".repeat(*width);
                    text += &if column == 0 { format!("|-{line}-") } else { format!("|-{line}:") };
                }
                text += "|\n";
            }
        }
        text
    }
}

/// The middle one of several measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// See [`median`].
    pub median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of all these.
    pub fn of(values: &[f64]) -> Self {
        let (least, most) =
            values.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(*value), most.max(*value)));
        Self { median: median(values), least, most }
    }

    /// With so many decimals.
    pub fn text(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", self.median, self.least, self.most)
    }
}

/// The middle one; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}
