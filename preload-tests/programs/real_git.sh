# A repository's life, from its first commit to a clone of what was packed. Its folder is made anew each time.
set -e
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_AUTHOR_DATE='2024-01-01T00:00:00Z'
export GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=$PWD
rm -rf work clone
git init -q -b main work
cd work
for round in 1 2 3 4 5 6 7 8; do
    mkdir -p "folder$round"
    for file in 1 2 3 4 5 6 7 8 9 10; do seq $((round * file)) $((round * file + 200)) >"folder$round/file$file"; done
    seq $((round * 7)) 3000 >shared
    git add .
    git commit -q -m "round $round"
    git tag "v$round"
done
git checkout -q -b side v4
seq 1 50 >side
git add side
git commit -q -m side
git mv folder1/file1 folder1/moved
git commit -q -m moved
git checkout -q main
git cherry-pick side~1 >/dev/null
git merge -q -m merged side
seq 5 2900 >shared
git stash -q
git stash pop -q
git diff --stat
git commit -q -a -m last
git rebase -q HEAD~2
git log --oneline --graph --stat
git blame -s shared | tail -n 3
git grep -c 77 v3 | head -n 5
git show --format=%s v5:shared | tail -n 1
git diff v2 v6 -- folder3 | cksum
git shortlog -s HEAD
git describe --tags
git gc -q --prune=now
git fsck --full
git count-objects -v | grep -v size
git archive HEAD | cksum
git bundle create -q ../bundle --all
git bisect start HEAD v1
git bisect run true
git bisect reset
cd ..
git clone -q work clone
git -C clone status --short --branch
git -C clone fetch -q --all
git -C clone ls-files | wc -l
git -C clone rev-parse HEAD
