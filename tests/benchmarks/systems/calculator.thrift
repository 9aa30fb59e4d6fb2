struct Pair {
    1: required i64 x,
    2: required i64 y,
}

service Calculator {
    i64 add(1: Pair pair),
    string echo(1: string text),
}
