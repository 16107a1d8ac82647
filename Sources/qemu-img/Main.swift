import FormatEngine
@main enum Main { static func main() { } }
