package main

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

var (
	blue   = color.NRGBA{0x09, 0x69, 0xda, 0xff}
	orange = color.NRGBA{0xbc, 0x4c, 0x00, 0xff}
	sky    = color.NRGBA{0xdd, 0xf4, 0xff, 0xff}
	grey   = color.NRGBA{0x57, 0x60, 0x6a, 0xff}
	pale   = color.NRGBA{0xd0, 0xd7, 0xde, 0xff}
)

// plot draws what was measured. The axes are the same in every run, so that runs can be compared.
func (p *page) plot(dir string) error {
	panels := []*plot.Plot{
		p.growth("time, seconds", func(s sweep) float64 { return s.Duration.Seconds() }),
		p.growth("AWS calls", func(s sweep) float64 { return float64(s.Calls) }),
		p.growth("memory, MiB", sweep.MiB),
	}
	scale(&panels[0].Y, 0.01, 0.1, 1, 10, 100, 1000)
	scale(&panels[1].Y, 1, 10, 100, 1000, 10_000, 100_000)
	scale(&panels[2].Y, 0, 20, 40, 60, 80)
	// Time and calls grow in proportion to connections: a straight line if both axes are
	// logarithmic.
	panels[0].Y.Scale, panels[1].Y.Scale = plot.LogScale{}, plot.LogScale{}
	limit(panels[2], maxMiB, english.Sprintf("target: below %d", maxMiB), 4)
	panels[1].Legend, panels[2].Legend = plot.NewLegend(), plot.NewLegend()
	if err := save(filepath.Join(dir, "growth.svg"), "A sweep, by number of connections", 250, panels...); err != nil {
		return err
	}

	due := last(p.Due)
	pace := chart("", "seconds since the sweep began", "refreshes a second, in each 5 s")
	scale(&pace.X, 0, 30, 60, 90, 120, 150, 180, 210, 240)
	scale(&pace.Y, 0, 15, 30, 45, 60)
	grid(pace)
	line, _ := plotter.NewLine(append(plotter.XYs{{X: 0, Y: due.Pace[0].Y}}, due.Pace...))
	line.Color, line.FillColor, line.StepStyle = blue, sky, plotter.PreStep
	pace.Add(line)
	limit(pace, awsWrites, english.Sprintf("AWS's quota: %.0f writes a second", awsWrites), 4)
	limit(pace, writesPerSecond, english.Sprintf("WRITES_PER_SECOND: %.0f", writesPerSecond), -24)
	title := english.Sprintf("A sweep with %d connections due", due.Connections)
	if err := save(filepath.Join(dir, "pace.svg"), title, 230, pace); err != nil || p.Theirs == nil {
		return err
	}

	rates, calls := p.beside("refreshes a second", "%.1f", sweep.Rate), p.beside("AWS calls for each refresh", "%.2f", sweep.CallsEach)
	scale(&rates.X, 0, 10, 20, 30, 40, 50)
	scale(&calls.X, 0, 0.5, 1, 1.5, 2, 2.5)
	title = english.Sprintf("A warm function's sweep with %d connections due", p.Ours.Next.Connections)
	return save(filepath.Join(dir, "python.svg"), title, 150, rates, calls)
}

// growth shows how a value grows with the number of connections.
func (p *page) growth(title string, value func(sweep) float64) *plot.Plot {
	c := chart(title, "connections", "")
	scale(&c.X, 100, 1000, 10_000, 100_000)
	c.X.Scale = plot.LogScale{}
	grid(c)
	for _, series := range []struct {
		name   string
		sweeps []sweep
		color  color.Color
		shape  draw.GlyphDrawer
	}{{"everything due", p.Due, orange, draw.CircleGlyph{}}, {"nothing due", p.Idle, blue, draw.BoxGlyph{}}} {
		var points plotter.XYs
		for _, s := range series.sweeps {
			points = append(points, plotter.XY{X: float64(s.Connections), Y: value(s)})
		}
		line, marks, _ := plotter.NewLinePoints(points)
		line.Color, line.Width = series.color, 1.5
		marks.Color, marks.Shape, marks.Radius = series.color, series.shape, 3
		c.Add(line, marks)
		c.Legend.Add(series.name, line, marks)
	}
	return c
}

// beside shows a value of the Python function's faster sweep, and of ours.
func (p *page) beside(name, format string, value func(sweep) float64) *plot.Plot {
	c := chart("", name, "")
	c.NominalY("Python", "entra-connector")
	for i, v := range []*rival{p.Theirs, p.Ours} {
		value := value(v.Next)
		bar, _ := plotter.NewBarChart(plotter.Values{value}, 24)
		bar.Horizontal, bar.XMin, bar.LineStyle.Width = true, float64(i), 0
		bar.Color = []color.Color{orange, blue}[i]
		c.Add(bar)
		label(c, value, float64(i), english.Sprintf(format, value), -4)
	}
	c.Y.Min, c.Y.Max = -0.6, 1.6
	return c
}

// chart is an empty chart with our sizes: 10 points are 13 pixels of a page that is 800 wide.
func chart(title, x, y string) *plot.Plot {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
	c := plot.New()
	c.Title.Text, c.X.Label.Text, c.Y.Label.Text = title, x, y
	c.Title.TextStyle.Font.Size, c.Title.Padding = 11, 6
	c.Legend.TextStyle.Font.Size, c.Legend.Padding = 10, 3
	c.Legend.Top, c.Legend.Left, c.Legend.XOffs = true, true, 6
	for _, axis := range []*plot.Axis{&c.X, &c.Y} {
		axis.Label.TextStyle.Font.Size, axis.Tick.Label.Font.Size = 10, 10
		axis.Padding, axis.Label.Padding = 0, 4
	}
	return c
}

// grid draws a line at each tick of the y axis.
func grid(c *plot.Plot) {
	lines := plotter.NewGrid()
	lines.Vertical.Width, lines.Horizontal.Color = 0, pale
	c.Add(lines)
}

// scale makes the axis run from the first of these ticks to the last.
func scale(axis *plot.Axis, values ...float64) {
	var ticks plot.ConstantTicks
	for _, value := range values {
		ticks = append(ticks, plot.Tick{Value: value, Label: strings.Replace(english.Sprint(value), ",000", "k", 1)})
	}
	axis.Min, axis.Max, axis.Tick.Marker = values[0], values[len(values)-1], ticks
}

// limit draws a dashed line across the chart, with text above or below it.
func limit(c *plot.Plot, y float64, text string, up vg.Length) {
	line := plotter.NewFunction(func(float64) float64 { return y })
	line.Color, line.Dashes = grey, []vg.Length{4, 3}
	c.Add(line)
	label(c, c.X.Min, y, text, up)
}

func label(c *plot.Plot, x, y float64, text string, up vg.Length) {
	labels, _ := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: y}}, Labels: []string{text}})
	labels.TextStyle[0].Font.Size, labels.Offset = 10, vg.Point{X: 5, Y: up}
	c.Add(labels)
}

// save writes the panels side by side, on white, so that they can be read on a dark page too.
func save(file, title string, height vg.Length, panels ...*plot.Plot) error {
	const width = 600
	canvas := vgsvg.New(width, height)
	c := draw.New(canvas)
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	style := panels[0].Title.TextStyle
	style.Font.Size, style.XAlign, style.YAlign = 13, draw.XCenter, draw.YTop
	c.FillText(style, vg.Point{X: width / 2, Y: height - 8}, title)
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadTop: 32, PadBottom: 8, PadLeft: 8, PadRight: 14, PadX: 18}
	for i, tile := range plot.Align([][]*plot.Plot{panels}, tiles, c)[0] {
		panels[i].Draw(tile)
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Few readers have the Liberation fonts. These have letters of the same width.
	text := strings.ReplaceAll(svg.String(), "Liberation Sans", "Arial, Helvetica, Liberation Sans, sans-serif")
	return os.WriteFile(file, []byte(text), 0o644)
}
