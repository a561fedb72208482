//! The page: its frame, tables, and what makes text safe in it.

/// Colors for light and dark, text that wraps, tables that scroll.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#667;--line:#d5d9e0;--back:#fff;--panel:#f6f7f9;--a:#2563b0;--b:#c2410c;--c:#15803d;--d:#7c3aed;--e:#a16207;--f:#0e7490}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ec;--dim:#9aa3b2;--line:#39404c;--back:#14171c;--panel:#1c2027;--a:#6ea8ee;--b:#f59e6b;--c:#5fc98b;--d:#b79bf5;--e:#dfbd5b;--f:#58c4dc}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:0 auto;max-width:1080px;padding:1rem 1.5rem 4rem}\
h1{font-size:1.6rem;margin:.4rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}\
nav a{margin-right:1rem;color:var(--a)}p.dim,.dim{color:var(--dim)}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}th,td{text-align:left;padding:.2rem .9rem .2rem 0;vertical-align:top;border-bottom:1px solid var(--line)}th{color:var(--dim);font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}\
figure{margin:.6rem 0;background:var(--panel);padding:.6rem;border-radius:6px}figcaption{font-size:.85rem;color:var(--dim)}img{max-width:100%;height:auto;display:block}audio{width:100%;max-width:32rem}\
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:11px system-ui,sans-serif}svg .grid{stroke:var(--line)}svg .line{fill:none;stroke-width:1.6}svg .mark{stroke:var(--dim);stroke-dasharray:3 3}\
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:.6rem}pre{background:var(--panel);padding:.6rem;overflow-x:auto;font-size:.8rem}summary{cursor:pointer;color:var(--a)}\
.bad{color:var(--b)}.legend span{margin-right:1rem;white-space:nowrap}.legend i{display:inline-block;width:1.2rem;height:.2rem;vertical-align:middle;margin-right:.3rem}";

/// Shows the values under the pointer beside a curve's legend.
const SCRIPT: &str = "\
for(const f of document.querySelectorAll('figure.curve')){const s=f.querySelector('svg'),o=f.querySelector('output'),d=JSON.parse(f.querySelector('script').textContent);\
s.addEventListener('pointermove',e=>{const b=s.getBoundingClientRect(),v=s.viewBox.baseVal,x=(e.clientX-b.left)/b.width*v.width,t=d.x0+(x-d.left)/d.width*(d.x1-d.x0);\
o.textContent=d.series.map(c=>{let p=null;for(const q of c.points)if(p===null||Math.abs(q[0]-t)<Math.abs(p[0]-t))p=q;return p?c.name+' '+Number(p[1].toPrecision(6))+' (step '+p[0]+')':''}).join('   ')});\
s.addEventListener('pointerleave',()=>{o.textContent=''})}";

/// Text as it can stand in HTML, also within quotes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other if other.is_control() && other != '\n' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// A page in the making.
pub struct Page {
    name: String,
    sections: Vec<(String, String)>,
}

impl Page {
    /// An empty page about the experiment `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), sections: Vec::new() }
    }

    /// Adds a section; `body` is HTML. One without a body is left out.
    pub fn section(&mut self, title: &str, body: String) {
        if !body.is_empty() {
            self.sections.push((title.to_owned(), body));
        }
    }

    /// The whole page.
    pub fn finish(self) -> String {
        let name = escape(&self.name);
        let id = |title: &str| title.to_lowercase().replace(' ', "-");
        let links: String = self
            .sections
            .iter()
            .map(|(title, _)| format!("<a href=\"#{}\">{}</a>", id(title), escape(title)))
            .collect();
        let sections: String = self
            .sections
            .iter()
            .map(|(title, body)| {
                format!("<section id=\"{}\">\n<h2>{}</h2>\n{body}</section>\n", id(title), escape(title))
            })
            .collect();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{name}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n<nav>{links}</nav>\n{sections}\
             <script>{SCRIPT}</script>\n</body>\n</html>\n"
        )
    }
}

/// A cell of a table.
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, or what stands for one.
    Number(String),
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number.
    pub fn number(text: impl ToString) -> Self {
        Self::Number(text.to_string())
    }
}

/// A table; empty without rows.
pub fn table(heads: &[&str], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heads: String = heads.iter().map(|head| format!("<th>{}</th>", escape(head))).collect();
    let cell = |cell: &Cell| match cell {
        Cell::Text(text) => format!("<td>{}</td>", escape(text)),
        Cell::Number(text) => format!("<td class=\"n\">{}</td>", escape(text)),
    };
    let rows: String =
        rows.iter().map(|row| format!("<tr>{}</tr>\n", row.iter().map(cell).collect::<String>())).collect();
    format!("<div class=\"wide\"><table>\n<tr>{heads}</tr>\n{rows}</table></div>\n")
}

/// A paragraph in a quiet color.
pub fn remark(text: &str) -> String {
    format!("<p class=\"dim\">{}</p>\n", escape(text))
}

/// Something long, folded away.
pub fn folded(title: &str, text: &str) -> String {
    format!("<details><summary>{}</summary><pre>{}</pre></details>\n", escape(title), escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_become_markup() {
        let hostile = "<script>alert('x')</script>&\"\u{1b}";
        let shown = table(&["a"], &[vec![Cell::text(hostile)]]) + &remark(hostile) + &folded(hostile, hostile);
        assert!(!shown.contains("<script") && !shown.contains('\u{1b}'), "{shown}");
        assert!(Page::new(hostile).finish().contains("<h1>&lt;script&gt;"));
    }
}
