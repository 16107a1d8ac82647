/// Codec contexts that wait for their next user: making one costs more than packing a small cluster.
final class ContextPool<Context: AnyObject & Sendable>: Sendable {
  private let make: @Sendable () throws(EngineError) -> Context
  private let free = Guarded<[Context]>([])

  init(_ make: @escaping @Sendable () throws(EngineError) -> Context) { self.make = make }

  func with<T>(_ body: (Context) throws(EngineError) -> T) throws(EngineError) -> T {
    let waiting = free.withLock { $0.popLast() }
    let context: Context
    if let waiting { context = waiting } else { context = try make() }
    defer { free.withLock { $0.append(context) } }
    return try body(context)
  }
}
