# For each line on stdin one round of work, and one line of what came out of it.
declare -A counts
declare -a words
shopt -s extglob

count() {
    local word
    for word in "$@"; do counts[$word]=$((${counts[$word]:-0} + 1)); done
}

while read -r round; do
    unset 'counts' 'words'
    declare -A counts=()
    words=()
    for i in {1..1500}; do words+=("word$((i * 7919 % 101))"); done
    count "${words[@]}"
    sum=0
    for word in "${!counts[@]}"; do ((sum += counts[$word] * ${#word})); done
    text=$(printf '%s\n' "${words[@]:0:50}" | sort | uniq -c | while read -r number word; do echo "$word=$number"; done)
    read -r -d '' document <<END || true
${text//word/w} $sum $((RANDOM < 0)) ${words[7]^^} ${words[8]%%+([0-9])}
END
    same=$(diff <(echo "$text") <(echo "$text" | tac | tac) && echo same)
    if [[ $document =~ w([0-9]+)=1 ]]; then first=${BASH_REMATCH[1]}; fi
    (exit 3) || status=$?
    trap 'true' USR1
    kill -USR1 "$BASHPID"
    printf -v line '%s %d %s %d %s' "$same" "$sum" "$first" "$status" "$(cksum <<<"$document")"
    eval "echo \"\$line\""
done
